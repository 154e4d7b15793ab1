"""A unary call and one that streams, with messages of plain bytes."""
import os
import sys

import grpc

credentials = grpc.ssl_channel_credentials()
with grpc.secure_channel(os.environ["URL"].removeprefix("https://"), credentials) as channel:
    if sys.argv[1:] == ["secrets"]:
        secret = os.environ["SECRET"].encode()
        calls = {
            "answer": lambda: channel.unary_unary("/probe.Echo/Token")(b"", timeout=20),
            "request": lambda: channel.unary_unary("/probe.Echo/Unary")(b"x" + secret, timeout=20),
            "coded": lambda: channel.unary_unary("/probe.Echo/Unary")(
                secret * 9, timeout=20, compression=grpc.Compression.Gzip
            ),
            "denied": lambda: channel.unary_unary("/elsewhere/Unary")(b"", timeout=20),
        }
        for name, call in calls.items():
            try:
                print(name, "was not refused:", call())
            except grpc.RpcError as error:
                print(name, error.code().name, error.details())
        sys.exit()
    unary = channel.unary_unary("/probe.Echo/Unary")
    message = b"hello" * 10_000
    answer, call = unary.with_call(message, timeout=20)
    assert answer == message and call.code() == grpc.StatusCode.OK
    stream = channel.unary_stream("/probe.Echo/Stream")
    assert list(stream(b"hello", timeout=20)) == [b"hello"] * 3
print("grpc: OK")
