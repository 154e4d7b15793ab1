"""Talks to the API that is named, under its real name, with the vendor's SDK.

Two turns: the model calls a tool, and hears what it answered. Prints as JSON what the SDK
made of the streams: what it gave piece by piece, and what it put together by itself.
"""
import base64
import json
import os
import sys

PROMPT = os.environ["PROMPT"]
IMAGE = os.environ["IMAGE"]
PARAMETERS = {
    "type": "object",
    "properties": {"note": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["note", "count"],
}


def image():
    with open(IMAGE, "rb") as file:
        return file.read()


def said(**parts):
    return {"reasoning": "", "text": "", "arguments": "", **parts}


def openai_chat():
    import openai

    client = openai.OpenAI()
    function = {"name": "lookup", "description": "looks it up", "parameters": PARAMETERS}
    url = "data:image/png;base64," + base64.b64encode(image()).decode()
    content = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    for _ in range(2):
        turn = said()
        with client.chat.completions.stream(
            model="gpt-fake",
            messages=messages,
            tools=[{"type": "function", "function": function}],
            stream_options={"include_usage": True},
        ) as stream:
            for event in stream:
                if event.type != "chunk" or not event.chunk.choices:
                    continue
                delta = event.chunk.choices[0].delta
                turn["text"] += delta.content or ""
                turn["reasoning"] += (delta.model_extra or {}).get("reasoning_content") or ""
                for call in delta.tool_calls or []:
                    turn["arguments"] += call.function.arguments or ""
            whole = stream.get_final_completion()
        message = whole.choices[0].message
        calls = message.tool_calls or []
        turn["whole"] = {"text": message.content, "arguments": [call.function.arguments for call in calls]}
        turn["end"] = [whole.choices[0].finish_reason, whole.usage.total_tokens]
        yield turn
        messages.append(message.model_dump(exclude_none=True, include={"role", "content"}))
        if calls:
            messages[-1]["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in calls
            ]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": PROMPT} for call in calls]


def openai_responses():
    import openai

    client = openai.OpenAI()
    tool = {"type": "function", "name": "lookup", "parameters": PARAMETERS, "strict": False}
    url = "data:image/png;base64," + base64.b64encode(image()).decode()
    content = [{"type": "input_text", "text": PROMPT}, {"type": "input_image", "image_url": url, "detail": "auto"}]
    items = [{"role": "user", "content": content}]
    for _ in range(2):
        turn = said(done=[])
        with client.responses.stream(model="gpt-fake", input=items, tools=[tool]) as stream:
            for event in stream:
                match event.type:
                    case "response.output_text.delta":
                        turn["text"] += event.delta
                    case "response.reasoning_summary_text.delta":
                        turn["reasoning"] += event.delta
                    case "response.function_call_arguments.delta":
                        turn["arguments"] += event.delta
                    case "response.output_item.done":
                        turn["done"].append(event.item.to_dict(mode="json"))
            whole = stream.get_final_response()
        calls = [item for item in whole.output if item.type == "function_call"]
        turn["whole"] = {"text": whole.output_text, "arguments": [call.arguments for call in calls]}
        turn["end"] = [whole.status, whole.usage.total_tokens]
        yield turn
        for call in calls:
            items.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": PROMPT})


def anthropic_messages():
    import anthropic

    client = anthropic.Anthropic()
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(image()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": PROMPT}]
    messages = [{"role": "user", "content": content}]
    for _ in range(2):
        turn = said()
        with client.messages.stream(
            model="claude-fake",
            max_tokens=4096,
            thinking={"type": "enabled", "budget_tokens": 1024},
            tools=[{"name": "lookup", "input_schema": PARAMETERS}],
            messages=messages,
        ) as stream:
            for event in stream:
                if event.type != "content_block_delta":
                    continue
                turn["text"] += getattr(event.delta, "text", "")
                turn["arguments"] += getattr(event.delta, "partial_json", "")
            whole = stream.get_final_message()
        calls = [block for block in whole.content if block.type == "tool_use"]
        text = "".join(block.text for block in whole.content if block.type == "text")
        turn["whole"] = {"text": text, "arguments": [json.dumps(call.input) for call in calls]}
        turn["end"] = [whole.stop_reason, whole.usage.output_tokens]
        yield turn
        messages.append({"role": "assistant", "content": [block.to_dict(mode="json") for block in whole.content]})
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": PROMPT} for call in calls]
        messages.append({"role": "user", "content": results})


def gemini():
    from google import genai
    from google.genai import types

    client = genai.Client()
    lookup = types.FunctionDeclaration(name="lookup", parameters_json_schema=PARAMETERS)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[lookup])],
        thinking_config=types.ThinkingConfig(include_thoughts=True),
    )
    picture = types.Part.from_bytes(data=image(), mime_type="image/png")
    contents = [types.Content(role="user", parts=[picture, types.Part(text=PROMPT)])]
    for _ in range(2):
        turn, calls, end = said(), [], None
        for chunk in client.models.generate_content_stream(model="gemini-fake", contents=contents, config=config):
            for part in chunk.candidates[0].content.parts or []:
                if part.function_call:
                    calls.append(part.function_call)
                elif part.thought:
                    turn["reasoning"] += part.text
                else:
                    turn["text"] += part.text or ""
            if chunk.candidates[0].finish_reason:
                end = [chunk.candidates[0].finish_reason, chunk.usage_metadata.total_token_count]
        turn["whole"] = {"text": turn["text"], "arguments": [json.dumps(call.args) for call in calls]}
        turn["end"] = end
        yield turn
        for call in calls:
            contents.append(types.Content(role="model", parts=[types.Part(function_call=call)]))
            response = types.FunctionResponse(name=call.name, response={"result": PROMPT})
            contents.append(types.Content(role="user", parts=[types.Part(function_response=response)]))


print(json.dumps(list(globals()[sys.argv[1]]())))
