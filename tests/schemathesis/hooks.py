"""What schemathesis has to know of the API.

Listings are several JSON documents, one after the other (`x-lines`). And as in ipfs-cluster v1.1.6, what only the cluster
can judge is refused with a 500: these texts, and no others, are such refusals.
"""

import json
import re

import jsonschema_rs
import schemathesis


REFUSALS = [
    r"pin\.ExpireAt set before current time",
    r"cluster\.replication_factor_.*",
    r"not enough peers to allocate CID.*",
    r".* is already pinned in .* mode.*",
    r"cannot remove ourselves from a 1-peer cluster",
    r"peer \S+ joins by itself: .*",
    r"cannot resolve /ipns/.*: the embedded IPFS node does not resolve names; .*",
]


@schemathesis.check
def answered(ctx, response, case):
    """No 5xx, but for the refusals."""
    if response.status_code < 500:
        return
    body = response.json()
    refused = response.status_code == 500 and set(body) == {"code", "message"}
    if not refused or not any(re.fullmatch(text, body["message"], re.DOTALL) for text in REFUSALS):
        raise AssertionError(f"{response.status_code}: {body}")


def documents(text):
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        while place < len(text) and text[place] in "\r\n":
            place += 1
    return found


@schemathesis.deserializer("application/json")
def deserialize(context, response):
    """The document; of several, the first, after the others were held against the schema as well."""
    answers = context.operation.definition.raw.get("responses", {})
    answer = answers.get(str(response.status_code), {})
    if not answer.get("x-lines"):
        return response.json()
    found = documents(response.content.decode("utf-8"))
    components = context.operation.schema.raw_schema["components"]
    schema = {**answer["content"]["application/json"]["schema"], "components": components}
    validator = jsonschema_rs.validator_for(schema)
    for document in found:
        validator.validate(document)
    return found[0]
