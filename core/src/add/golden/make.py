#!/usr/bin/env python3
"""Writes the table of CIDs that a real Kubo gives to generated content: make.py <path of ipfs> > kubo.txt

Run it with IPFS_PATH at a fresh repo (`ipfs init`); nothing is stored and no network is used. The content is made
again by `golden_tests.rs`: file bytes come from splitmix64 with seed 42, each number as eight bytes, lowest first.
"""
import os
import shutil
import struct
import subprocess
import sys
import tempfile

IPFS = os.path.abspath(sys.argv[1])
MASK = (1 << 64) - 1
VARIANTS = [(0, False), (0, True), (1, False), (1, True)]


def generated(length):
    out, state, pack = bytearray(), 42, struct.Struct("<Q").pack
    for _ in range((length + 7) // 8):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out += pack(z ^ (z >> 31))
    return bytes(out[:length])


def ipfs(*arguments):
    done = subprocess.run([IPFS, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip("\n").split("\n")


def add(path, version=0, raw=False, chunker="size-262144", hash="sha2-256", wrap=False, trickle=False):
    return ipfs("add", "-n", "-Q", "-r", f"--trickle={str(trickle).lower()}", f"--cid-version={version}", f"--raw-leaves={str(raw).lower()}",
                f"--chunker={chunker}", f"--hash={hash}", f"--wrap-with-directory={str(wrap).lower()}", path)[-1]


def leaves(raw):
    return "raw" if raw else "pb"


def files():
    whole = generated(100_000_000)
    for length in (0, 1, 262144, 262145, 1_000_000, 60_000_000, 100_000_000):
        with open("file", "wb") as file:
            file.write(whole[:length])
        for version, raw, chunker in [(*variant, "size-262144") for variant in VARIANTS] + [(0, False, "size-1048576"), (1, True, "size-1048576")]:
            print("file", length, version, leaves(raw), chunker, "sha2-256", add("file", version, raw, chunker))
    # Full and just overfull levels of the tree.
    for length, chunker in [(17_400, "size-100"), (17_401, "size-100"), (302_760, "size-10"), (302_761, "size-10"), (5_000_000, "size-2096896")]:
        with open("file", "wb") as file:
            file.write(whole[:length])
        for version, raw in VARIANTS:
            print("file", length, version, leaves(raw), chunker, "sha2-256", add("file", version, raw, chunker))
    with open("file", "wb") as file:
        file.write(whole[:1_000_000])
    for hash in ("sha1", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512", "keccak-256", "keccak-512", "blake2b-160", "blake2b-256", "blake2b-512", "blake2s-256", "blake3", "dbl-sha2-256"):
        print("file", 1_000_000, 1, "raw", "size-262144", hash, add("file", 1, True, hash=hash))


def shapes():
    whole = generated(60_000_000)
    # Chunks cut by the content, at and around the least and the most bytes of a chunk.
    for length in (0, 1, 131_072, 131_073, 524_288, 524_289, 5_000_000):
        for chunker in ("buzhash", "rabin", "rabin-100000", "rabin-20000-65536-2000000"):
            shape(whole, length, 1, True, chunker, "balanced")
    for length, chunker in [(100_000, "rabin-48"), (100_000, "rabin-16-32-64"), (3_000_000, "rabin-min:1000-avg:5000-max:6000")]:
        shape(whole, length, 0, False, chunker, "balanced")
    # The same byte over and over: no end is found but the last.
    for chunker in ("buzhash", "rabin"):
        shape(bytes(3_000_000), 3_000_000, 1, True, chunker, "zeros")
    # Trees of leaves only, and the first and last leaf of each depth: 174 + 4 * 174 + 4 * (174 + 4 * 174) + ...
    for leaves in (0, 1, 174, 175, 870, 871, 4_350, 4_351, 5_000):
        for variant in VARIANTS:
            shape(whole, leaves * 10, *variant, "size-10", "trickle")
    for variant in VARIANTS:
        shape(whole, 60_000_000, *variant, "size-262144", "trickle")
    shape(whole, 5_000_000, 1, False, "buzhash", "trickle")


def shape(content, length, version, raw, chunker, layout):
    with open("file", "wb") as file:
        file.write(content[:length])
    print("shape", length, version, leaves(raw), chunker, layout, add("file", version, raw, chunker, trickle=layout == "trickle"))


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def directories():
    os.makedirs("empty")
    for name, data in (("b", b"two"), ("a", b"one"), ("Z", b"capital"), ("a.b", b""), ("é", b"accent")):
        write(f"plain/{name}", data)
    os.symlink("../a", "plain/link")
    os.makedirs("nested/void")
    write("nested/x/y/z/deep", b"deep\n")
    write("nested/x/top", generated(262145))
    write("nested/r", b"r")
    shutil.copytree("plain", "nested/plain", symlinks=True)
    for name in ("empty", "plain", "nested"):
        for version, raw in VARIANTS:
            for wrap in (False, True):
                print("directory", name, version, leaves(raw), "wrapped" if wrap else "bare", add(name, version, raw, wrap=wrap))
    # Names of decimal numbers, filled up with zeros to a width. With 30 characters and CIDv0, 4096 entries are at the
    # limit for one block and 4097 above it.
    for count, width in ((4096, 30), (4097, 30), (10_000, 10), (50_000, 40)):
        for number in range(count):
            write(f"many-{count}/{number:0{width}d}", b"%d" % number)
        for version, raw in VARIANTS:
            print("many", count, version, leaves(raw), width, add(f"many-{count}", version, raw))


def listing():
    for line in ipfs("add", "-n", "-r", "--progress=false", "nested"):
        _, cid, name = line.split(" ", 2)
        print("listing", cid, name)


print("#", ipfs("version")[0], "- made by make.py")
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    files()
    shapes()
    directories()
    listing()
