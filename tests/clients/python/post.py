"""Sends BODY to the address: CLIENT URL BODY [SECONDS]. Says the status and what came of it."""
import sys

name, url, body = sys.argv[1:4]
patience = {"timeout": float(sys.argv[4])} if len(sys.argv) > 4 else {}


def requests_():
    import requests

    try:
        answer = requests.post(url, data=body.encode(), **patience)
    except requests.exceptions.Timeout:
        return "left", ""
    return answer.status_code, answer.text


def openai_():
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, **patience)
    messages = [{"role": "user", "content": body}]
    try:
        stream = client.chat.completions.create(model="m", messages=messages, stream=True)
        return 200, "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    except openai.APITimeoutError:
        return "left", ""
    except openai.APIStatusError as error:
        return error.status_code, error.message
    except openai.APIError as error:
        return "in the stream", error.message


def anthropic_():
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, **patience)
    messages = [{"role": "user", "content": body}]
    try:
        with client.messages.stream(model="m", max_tokens=99, messages=messages) as stream:
            return 200, stream.get_final_text()
    except anthropic.APITimeoutError:
        return "left", ""
    except anthropic.APIStatusError as error:
        return error.status_code, error.message


def boto3_():
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    # Once: what it makes of a denial is looked at, and each attempt signs anew.
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": "A", "aws_secret_access_key": "B", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=url, config=config, **keys)
    try:
        client.put_object(Bucket="bucket", Key="key", Body=body.encode())
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error
    return 200, ""


print(*globals()[name + "_"]())
