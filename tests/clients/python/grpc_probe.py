"""A unary call and one that streams, with messages of plain bytes."""
import os
import sys

import grpc

credentials = grpc.ssl_channel_credentials()
with grpc.secure_channel(os.environ["URL"].removeprefix("https://"), credentials) as channel:
    if sys.argv[1:] == ["token"]:
        # Its message would have another length than its frame says.
        try:
            answer = channel.unary_unary("/probe.Echo/Token")(b"", timeout=20)
            print("no message" if answer is None else answer)
        except grpc.RpcError as error:
            print("no message:", error.code(), error.details())
        sys.exit()
    unary = channel.unary_unary("/probe.Echo/Unary")
    message = b"hello" * 10_000
    answer, call = unary.with_call(message, timeout=20)
    assert answer == message and call.code() == grpc.StatusCode.OK
    stream = channel.unary_stream("/probe.Echo/Stream")
    assert list(stream(b"hello", timeout=20)) == [b"hello"] * 3
print("grpc: OK")
