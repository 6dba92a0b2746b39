// Oracle: openai's own client for node, which parses the replies, and each request's answer by another way.
// ALEA_URL is the server's address.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.ALEA_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = "storyteller";
const completion = { model, prompt: "Once upon a time", max_tokens: 12, seed: 3 };
const chat = { model, messages: [{ role: "user", content: "Tell me of the king." }], max_completion_tokens: 12, seed: 3 };

test("the models", async () => {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  assert.deepEqual(ids, [model]);
  assert.equal((await client.models.retrieve(model)).owned_by, (await client.models.list()).data[0].owned_by);
});

test("a completion, whole and streamed", async () => {
  const { choices, usage } = await client.completions.create({ ...completion, n: 2, logprobs: 2 });
  const parts = ["", ""];
  const logprobs = [[], []];
  let streamed;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.completions.create({ ...completion, n: 2, logprobs: 2, ...options })) {
    for (const part of chunk.choices) {
      parts[part.index] += part.text;
      logprobs[part.index].push(...(part.logprobs?.token_logprobs ?? []));
    }
    streamed = chunk.usage ?? streamed;
  }
  assert.deepEqual(parts, choices.map((choice) => choice.text));
  assert.deepEqual(logprobs, choices.map((choice) => choice.logprobs.token_logprobs));
  assert.deepEqual(streamed, usage);
});

test("a chat, whole and streamed", async () => {
  const { choices } = await client.chat.completions.create(chat);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, choices[0].message.content);
});

test("the client's own reader of streams", async () => {
  const { choices } = await client.chat.completions.create(chat);
  const stream = client.chat.completions.stream(chat);
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const message = await stream.finalMessage();
  assert.equal(text, choices[0].message.content);
  assert.deepEqual([message.role, message.content], ["assistant", text]);
});

test("fields that OpenAI does not have", async () => {
  const greedy = await client.completions.create({ ...completion, temperature: 0 });
  const narrow = await client.completions.create({ ...completion, top_k: 1 });
  assert.equal(narrow.choices[0].text, greedy.choices[0].text);
});

test("the seed that was drawn", async () => {
  const { seed, ...unseeded } = completion;
  const { data, response } = await client.completions.create(unseeded).withResponse();
  const drawn = response.headers.get("x-alea-seed");
  assert.match(drawn, /^\d+$/);
  // a seed may be too large for a number of JavaScript, so it stays text in the body
  const again = await fetch(`${process.env.ALEA_URL}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...unseeded, seed: 0 }).replace('"seed":0', `"seed":${drawn}`),
  });
  assert.equal((await again.json()).choices[0].text, data.choices[0].text);
});

test("an error names the field", async () => {
  await assert.rejects(client.completions.create({ ...completion, temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(client.completions.create({ ...completion, model: "gpt-5" }), OpenAI.NotFoundError);
});

test("a stream that is left early", async () => {
  const stream = await client.completions.create({ ...completion, max_tokens: 400, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break; // which aborts the request
  }
  assert.ok((await client.completions.create(completion)).choices[0].text);
});

test("many at once", async () => {
  const seeds = [...Array(8).keys()];
  const alone = [];
  for (const seed of seeds) alone.push((await client.completions.create({ ...completion, seed })).choices[0].text);
  const together = await Promise.all(seeds.map((seed) => client.completions.create({ ...completion, seed })));
  assert.deepEqual(together.map((reply) => reply.choices[0].text), alone);
});
