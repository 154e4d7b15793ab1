// Talks to the server at $URL with the client that is named.
import https from "node:https";

const url = process.env.URL;
const messages = [{ role: "user", content: "hello" }];

const clients = {
  async fetch() {
    return (await fetch(`${url}/text`)).text();
  },
  https() {
    return new Promise((resolve, reject) => {
      const request = https.get(`${url}/text`, (answer) => {
        let text = "";
        answer.on("data", (chunk) => (text += chunk));
        answer.on("end", () => resolve(text));
      });
      request.on("error", reject);
    });
  },
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: "m", messages, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    return text;
  },
  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const stream = client.messages.stream({ model: "m", max_tokens: 99, messages });
    return stream.finalText();
  },
  async live() {
    const answer = await fetch(`${url}/live?gzip`, { signal: AbortSignal.timeout(20_000) });
    let text = "";
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      text += piece;
      for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2)) {
        process.stdout.write(text.slice(0, at) + "\n");
        await fetch(`${url}/live/next`);
      }
    }
    return undefined;
  },
  async ws() {
    const { default: WebSocket } = await import("ws");
    const socket = new WebSocket(`${url.replace("https", "wss")}/ws`);
    return new Promise((resolve, reject) => {
      let greeting;
      socket.on("error", reject);
      socket.on("message", (data) => {
        if (greeting === undefined) {
          greeting = data.toString();
          socket.send("ping");
        } else {
          socket.close();
          data.toString() === "ping" ? resolve(greeting) : reject(new Error("another message came back"));
        }
      });
    });
  },
};

const said = await clients[process.argv[2]]();
if (said !== undefined) console.log(said);
