"""The examples of asyncipfscluster (PyPI), of its README and of its doc strings, against a running peer."""

import asyncio
import json
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode

from asyncipfscluster import IPFSClient
from asyncipfscluster.exceptions import IPFSException

URL, USER, PASSWORD = sys.argv[1:]
# The CID that the documentation of the library gives for these bytes.
GREETING = (b"Hello from cofob!", "QmdkTR6yFkXLh96DtAgBqW2bDGsxYKDTKZSLGgHkP8niyU")
# The CID of its example of removing.
OTHER = "QmRf22bZar3WKmojipms22PkXH1MZGmvsqzQtuSvQE3uhm"


def name_of_pin(cid):
    """The name it is pinned under, or None. Asked without the library, which has no call for it."""
    pair = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(f"{URL}/allocations/{cid}", headers={"Authorization": f"Basic {pair}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["name"]
    except urllib.error.HTTPError as error:
        assert error.code == 404, error
        return None


def said(title, text):
    print(f"  {title:32} {text}")


async def main():
    async with IPFSClient(URL) as stranger:
        try:
            await stranger.add_bytes(GREETING[0], "text/plain")
        except IPFSException as error:
            said("add_bytes, without the password", f"IPFSException: {error}")
        else:
            raise AssertionError("added without a password")
    async with IPFSClient(URL, (USER, PASSWORD)) as client:
        assert name_of_pin(GREETING[1]) is None
        cid = await client.add_bytes(GREETING[0], "text/plain")
        assert cid == GREETING[1], cid
        assert name_of_pin(cid) is not None
        said("add_bytes", cid)
        with tempfile.NamedTemporaryFile(suffix=".md") as file:
            file.write(GREETING[0])
            file.flush()
            assert await client.add_file(file.name, "text/plain") == cid
            said("add_file", cid)
            same = await client.add_file(file.name, "text/plain", filename="greeting.txt", name="greeting")
        assert same == cid, same
        assert name_of_pin(cid) == "greeting"
        said("add_file, with names", name_of_pin(cid))
        await client.remove(cid)
        assert name_of_pin(cid) is None
        said("remove", "gone")
        await client.remove(OTHER)
        said("remove, of what is not pinned", "no error")


asyncio.run(main())
