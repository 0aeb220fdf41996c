"""Python that C calls that Python calls, ten deep: see README.md for the true chains."""

import os
import select
import sys

DEPTH = 10


def leaf(x):
    for _ in range(2000):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
    return x


def down(x, depth):
    """Goes through C: `sorted` calls the function that it is given."""
    if depth == 0:
        return leaf(x)
    results = []
    sorted([x], key=lambda y: results.append(down(y + 1, depth - 1)) or 0)
    return results[0] ^ x


def over():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main():
    expected = down(1, DEPTH)
    print("ready", os.getpid(), flush=True)
    rounds = 0
    while not over():
        if down(1, DEPTH) != expected:
            sys.exit(1)
        rounds += 1
    print("checksum", f"{expected:016x}", rounds, flush=True)


main()
