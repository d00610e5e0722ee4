// A session of the AI SDK: node ai_sdk.mjs URL MODEL. Prints "case passed|model|FAILED detail", one a line.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, Output, streamText, tool } from 'ai';

const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: 'edgeagent', baseURL: `${url}/v1` });
const model = provider(name);

async function run(title, body) {
  try {
    const said = await body();
    console.log(`${title}\t${said ? 'passed' : 'model'}\t`);
  } catch (error) {
    console.log(`${title}\tFAILED\t${String(error).slice(0, 200)}`);
  }
}

await run('text', async () =>
  (await generateText({ model, prompt: 'Name a colour.', maxOutputTokens: 16 })).text);
await run('stream', async () => {
  let text = '';
  const made = streamText({ model, prompt: 'Name a colour.', maxOutputTokens: 16 });
  for await (const piece of made.textStream) text += piece;
  return text;
});

const lampState = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'], additionalProperties: false };
const lampAsk = 'Switch the lamp in the hall on.';

await run('a tool', async () => {
  const ran = [];
  const lamp = tool({
    description: 'Switch the lamp.',
    inputSchema: jsonSchema(lampState),
    execute: async (input) => { ran.push(input.on); return 'Done.'; },
  });
  const made = await generateText({
    model, prompt: lampAsk, tools: { lamp }, toolChoice: 'required', maxOutputTokens: 60,
  });
  if (made.toolCalls.length < 1 || typeof ran[0] !== 'boolean') throw new Error('the tool did not run');
  return true;
});
await run('an object', async () => {
  const structured = createOpenAICompatible({ name: 'edgeagent', baseURL: `${url}/v1`, supportsStructuredOutputs: true });
  const made = await generateText({
    model: structured(name), prompt: lampAsk, maxOutputTokens: 60,
    output: Output.object({ schema: jsonSchema(lampState) }),
  });
  if (typeof made.output.on !== 'boolean') throw new Error('no object');
  return true;
});
