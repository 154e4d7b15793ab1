"""GETs $URL/text with the client that is named, and prints the body."""
import asyncio
import os
import sys

url = os.environ["URL"] + "/text"


def urllib_():
    import urllib.request

    return urllib.request.urlopen(url).read().decode()


def requests_():
    import requests

    return requests.get(url).text


def httpx_():
    import httpx

    return httpx.get(url).text


def aiohttp_():
    import aiohttp

    async def get():
        # The environment's proxies, of which there are none, and the default trust.
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    return asyncio.run(get())


print(globals()[sys.argv[1] + "_"](), end="")
