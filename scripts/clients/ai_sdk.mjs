// A session of the AI SDK: node ai_sdk.mjs URL MODEL. Prints "case passed|model|FAILED detail", one a line.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';

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
