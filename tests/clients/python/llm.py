"""Streams an answer of the fake LLM API with the SDK that is named, and prints its text."""
import os
import sys

url = os.environ["URL"]
messages = [{"role": "user", "content": "hello"}]

if sys.argv[1] == "openai":
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    stream = client.chat.completions.create(model="m", messages=messages, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
else:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    with client.messages.stream(model="m", max_tokens=99, messages=messages) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason == "end_turn"
print(text)
