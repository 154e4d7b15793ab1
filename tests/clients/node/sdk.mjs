// Talks to the API that is named, under its real name, with the vendor's SDK.
//
// Two turns: the model calls a tool, and hears what it answered. Prints as JSON what the SDK
// made of the streams: what it gave piece by piece, and what it put together by itself.
import { readFileSync } from "node:fs";

const prompt = process.env.PROMPT;
const image = readFileSync(process.env.IMAGE).toString("base64");
const parameters = {
  type: "object",
  properties: { note: { type: "string" }, count: { type: "integer" } },
  required: ["note", "count"],
};
const nothing = () => ({ reasoning: "", text: "", arguments: "" });

const clients = {
  async *openaiChat() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI();
    const url = `data:image/png;base64,${image}`;
    const messages = [
      { role: "user", content: [{ type: "text", text: prompt }, { type: "image_url", image_url: { url } }] },
    ];
    const tools = [{ type: "function", function: { name: "lookup", parameters } }];
    for (let at = 0; at < 2; at++) {
      const turn = nothing();
      const stream = client.chat.completions.stream({
        model: "gpt-fake",
        messages,
        tools,
        stream_options: { include_usage: true },
      });
      for await (const chunk of stream) {
        const delta = chunk.choices[0]?.delta;
        turn.text += delta?.content ?? "";
        turn.reasoning += delta?.reasoning_content ?? "";
        for (const call of delta?.tool_calls ?? []) turn.arguments += call.function.arguments ?? "";
      }
      const whole = await stream.finalChatCompletion();
      const { message, finish_reason } = whole.choices[0];
      const calls = message.tool_calls ?? [];
      turn.whole = { text: message.content, arguments: calls.map((call) => call.function.arguments) };
      turn.end = [finish_reason, whole.usage.total_tokens];
      yield turn;
      messages.push(message);
      for (const call of calls) messages.push({ role: "tool", tool_call_id: call.id, content: prompt });
    }
  },

  async *openaiResponses() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI();
    const content = [
      { type: "input_text", text: prompt },
      { type: "input_image", image_url: `data:image/png;base64,${image}`, detail: "auto" },
    ];
    const input = [{ role: "user", content }];
    const tools = [{ type: "function", name: "lookup", parameters, strict: false }];
    for (let at = 0; at < 2; at++) {
      const turn = { ...nothing(), done: [] };
      const stream = client.responses.stream({ model: "gpt-fake", input, tools });
      for await (const event of stream) {
        if (event.type === "response.output_text.delta") turn.text += event.delta;
        if (event.type === "response.reasoning_summary_text.delta") turn.reasoning += event.delta;
        if (event.type === "response.function_call_arguments.delta") turn.arguments += event.delta;
        if (event.type === "response.output_item.done") turn.done.push(event.item);
      }
      const whole = await stream.finalResponse();
      const calls = whole.output.filter((item) => item.type === "function_call");
      turn.whole = { text: whole.output_text, arguments: calls.map((call) => call.arguments) };
      turn.end = [whole.status, whole.usage.total_tokens];
      yield turn;
      for (const { call_id, name, arguments: given } of calls) {
        input.push({ type: "function_call", call_id, name, arguments: given });
        input.push({ type: "function_call_output", call_id, output: prompt });
      }
    }
  },

  async *anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic();
    const source = { type: "base64", media_type: "image/png", data: image };
    const messages = [{ role: "user", content: [{ type: "image", source }, { type: "text", text: prompt }] }];
    for (let at = 0; at < 2; at++) {
      const turn = nothing();
      const stream = client.messages.stream({
        model: "claude-fake",
        max_tokens: 4096,
        thinking: { type: "enabled", budget_tokens: 1024 },
        tools: [{ name: "lookup", input_schema: parameters }],
        messages,
      });
      for await (const event of stream) {
        turn.text += event.delta?.text ?? "";
        turn.arguments += event.delta?.partial_json ?? "";
      }
      const whole = await stream.finalMessage();
      const calls = whole.content.filter((block) => block.type === "tool_use");
      const texts = whole.content.filter((block) => block.type === "text");
      turn.whole = {
        text: texts.map((block) => block.text).join(""),
        arguments: calls.map((call) => JSON.stringify(call.input)),
      };
      turn.end = [whole.stop_reason, whole.usage.output_tokens];
      yield turn;
      messages.push({ role: "assistant", content: whole.content });
      const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: prompt }));
      messages.push({ role: "user", content: results });
    }
  },

  async *gemini() {
    const { GoogleGenAI } = await import("@google/genai");
    const client = new GoogleGenAI({});
    const data = { inlineData: { data: image, mimeType: "image/png" } };
    const contents = [{ role: "user", parts: [data, { text: prompt }] }];
    const config = {
      tools: [{ functionDeclarations: [{ name: "lookup", parametersJsonSchema: parameters }] }],
      thinkingConfig: { includeThoughts: true },
    };
    for (let at = 0; at < 2; at++) {
      const turn = nothing();
      const calls = [];
      for await (const chunk of await client.models.generateContentStream({
        model: "gemini-fake",
        contents,
        config,
      })) {
        for (const part of chunk.candidates[0].content.parts ?? []) {
          if (part.functionCall) calls.push(part.functionCall);
          else if (part.thought) turn.reasoning += part.text;
          else turn.text += part.text ?? "";
        }
        const { finishReason } = chunk.candidates[0];
        if (finishReason) turn.end = [finishReason, chunk.usageMetadata.totalTokenCount];
      }
      turn.whole = { text: turn.text, arguments: calls.map((call) => JSON.stringify(call.args)) };
      yield turn;
      for (const call of calls) {
        contents.push({ role: "model", parts: [{ functionCall: call }] });
        const functionResponse = { name: call.name, response: { result: prompt } };
        contents.push({ role: "user", parts: [{ functionResponse }] });
      }
    }
  },
};

const turns = [];
for await (const turn of clients[process.argv[2]]()) turns.push(turn);
console.log(JSON.stringify(turns));
