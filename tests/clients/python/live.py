"""Prints each event of a stream, and asks for the next when it has it."""
import os

import httpx

url = os.environ["URL"] + "/live"
with httpx.Client(timeout=20) as client, client.stream("GET", url + "?gzip") as answer:
    for line in answer.iter_lines():
        if line:
            print(line)
            client.get(url + "/next")
