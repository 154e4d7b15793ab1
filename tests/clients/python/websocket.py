"""Reads the greeting of the WebSocket server, and has it send a message back."""
import os

from websockets.sync.client import connect

with connect(os.environ["URL"].replace("https", "wss") + "/ws") as socket:
    print(socket.recv())
    for message in ["ping", "x" * 70_000, b"\x00\xff" * 5_000]:
        socket.send(message)
        assert socket.recv() == message
