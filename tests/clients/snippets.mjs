// openai-node, groq-sdk and Vercel's ai. Run as: node snippets.mjs ROOT_URL, in a folder with node_modules.
import assert from "node:assert";
import OpenAI from "openai";
import Groq from "groq-sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const root = process.argv[2];
const messages = [{ role: "user", content: "Once upon a time" }];
const fields = { model: "stories263k", messages, max_tokens: 8, temperature: 0 };
let text;
for (const client of [new OpenAI({ baseURL: `${root}/v1`, apiKey: "x" }), new Groq({ baseURL: root, apiKey: "x" })]) {
  text = (await client.chat.completions.create(fields)).choices[0].message.content;
  assert(text.startsWith(" there was"), text);
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...fields, stream: true })) streamed += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(streamed, text);
  await assert.rejects(client.chat.completions.create({ ...fields, model: "gpt-9" }), error => error.status === 404 && error.error.error?.code !== 1);
}
const tsp = createOpenAICompatible({ name: "tsp", baseURL: `${root}/v1`, apiKey: "x", includeUsage: true });
const whole = await generateText({ model: tsp("stories263k"), prompt: "Once upon a time", maxOutputTokens: 8, temperature: 0 });
assert.equal(whole.text.trim(), text.trim());
assert.equal(whole.usage.outputTokens, 8);
let streamed = "";
for await (const part of streamText({ model: tsp("stories263k"), prompt: "Once upon a time", maxOutputTokens: 8, temperature: 0 }).textStream) streamed += part;
assert.equal(streamed.trim(), text.trim());
console.log("done");
