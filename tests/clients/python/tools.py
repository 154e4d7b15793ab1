"""Asks a model at the address for a stream: CLIENT URL. Says what it hears, as soon as it hears it."""
import sys

name, url = sys.argv[1:3]
messages = [{"role": "user", "content": "clean up"}]


def say(*words):
    print(*words, flush=True)


def openai_():
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    calls = {}
    try:
        for chunk in client.chat.completions.create(model="m", messages=messages, stream=True):
            delta = chunk.choices[0].delta
            if delta.content:
                say("text", delta.content)
            for call in delta.tool_calls or []:
                known = calls.setdefault(call.index, ["", ""])
                known[0] += call.function.name or ""
                known[1] += call.function.arguments or ""
        for call in calls.values():
            say("call", *call)
    except openai.APIError as error:
        say("ended", error.message)


def anthropic_():
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    try:
        with client.messages.stream(model="m", max_tokens=99, messages=messages) as stream:
            for event in stream:
                if event.type == "text":
                    say("text", event.text)
            for block in stream.get_final_message().content:
                if block.type == "tool_use":
                    say("call", block.name, block.input["command"])
    except anthropic.APIError as error:
        say("ended", error.message)


globals()[name + "_"]()
