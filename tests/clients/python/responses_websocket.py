"""Asks by WebSocket as Codex does, and prints each message of the answer on a line."""
import json
import os

from websockets.sync.client import connect

HEADERS = {"Authorization": "Bearer none", "OpenAI-Beta": "responses_websockets=2026-02-06"}

with connect("wss://api.openai.com/v1/responses", additional_headers=HEADERS) as socket:
    socket.send(json.dumps({"type": "response.create", **json.loads(os.environ["BODY"])}))
    for message in socket:
        print(message)
        if json.loads(message)["type"] == "response.completed":
            break
