// The page of a server, first part: its own server asked, and the numbers and the code that follow.
// Texts reach the page as textContent only, never as markup. The key stays in memory.

const $ = (id) => document.getElementById(id);
const LINES = 500; // of input
const ROWS = 32; // texts of a request, whose tokens have a limit
const CELLS = 24; // lines up to which the numbers themselves are written
const BEST = 10; // lines of a ranking
const CANDIDATES = 50; // lines that are reranked
const TERMS = 30; // of a sparse row
const PIECES = 5000; // tokens that are drawn
const LETTERS = 100_000; // of all lines, above which their ColBERT vectors would fill the memory
const MOST = 5000; // tokens of all lines that are compared with one another by ColBERT
const POLL = 10_000; // ms between looks at the server's figures

const base = location.pathname.replace(/\/*$/, "/"); // a proxy may keep a prefix
const site = `${location.origin}${base}`.slice(0, -1);
const state = { key: "", models: [], model: null, tab: "similarity", running: null, figures: true };
const number = (n) => n.toLocaleString("en");
const plural = (n, name) => `${number(n)} ${name}${n === 1 ? "" : "s"}`;
const NAMES = { dense: "Dense", sparse: "Sparse", colbert: "ColBERT", hybrid: "Hybrid", reranked: "Reranked" };

function made(tag, { text, children = [], style = {}, ...fields } = {}) {
  const element = Object.assign(document.createElement(tag), fields);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  element.append(...children);
  return element;
}

// ---- the server --------------------------------------------------------------------------------------------------

class Refused extends Error {} // its message is for the reader

async function ask(path, body, signal) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (state.key) headers.Authorization = `Bearer ${state.key}`;
  if (/[^\x20-\x7e]/.test(state.key)) throw unknownKey(); // a header could not carry it
  const method = body === undefined ? "GET" : "POST";
  let answer;
  try {
    answer = await fetch(base + path, { method, headers, body: JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The server cannot be reached. Is it still running?");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

function unknownKey() {
  const found = new Refused(
    state.key ? "The server does not know this key." : "This server wants a key. Type it above.",
  );
  return Object.assign(found, { wantsKey: true });
}

async function refusal(answer) {
  if (answer.status === 401) return unknownKey();
  const said = await answer.json().catch(() => null);
  const words = said?.error?.message ?? said?.error;
  const wait = Number(answer.headers.get("retry-after"));
  const again = wait > 1 ? ` Try again in ${plural(wait, "second")}.` : "";
  const found = new Refused(
    `${typeof words === "string" ? words : "The server gave no reason."}${again} (${answer.status})`,
  );
  return Object.assign(found, { loading: said?.error?.code === "loading" });
}

// What requests have cost so far: tokens, and the server's milliseconds.
const tally = () => ({ tokens: 0, texts: 0, cut: 0, ms: 0, run: 0 });
function add(cost, answer, texts) {
  const header = (name) => Number(answer.headers.get(name) ?? 0);
  cost.texts += texts;
  cost.tokens += header("x-compute-tokens");
  cost.cut += header("x-trivec-truncated");
  cost.ms += header("x-total-time");
  cost.run += header("x-inference-time");
}

function spent(cost, before = "") {
  const cut = cost.cut ? ` · ${plural(cost.cut, "text")} cut off at the model's length` : "";
  const time = `${number(cost.ms)} ms, of which the model ran ${number(cost.run)} ms`;
  return `${before}${plural(cost.texts, "text")}, ${plural(cost.tokens, "token")} in ${time}${cut}`;
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

// An item of an answer: `dense`, `sparse` (a Map), `colbert` (a list of vectors).
function read(item) {
  const found = {};
  if (item.embedding !== undefined) found.dense = new Float32Array(bytes(item.embedding));
  if (item.sparse_embedding !== undefined) {
    const values = new Float32Array(bytes(item.sparse_embedding.values));
    found.sparse = new Map(
      [...new Int32Array(bytes(item.sparse_embedding.indices))].map((index, i) => [index, values[i]]),
    );
  }
  if (item.multi_vector !== undefined) {
    const all = new Float32Array(bytes(item.multi_vector)),
      [count, width] = item.shape;
    found.colbert = Array.from({ length: count }, (_, i) => all.subarray(i * width, (i + 1) * width));
  }
  return found;
}

async function embed(texts, fields, outputs, cost, signal) {
  const found = [];
  for (let at = 0; at < texts.length; at += ROWS) {
    const input = texts.slice(at, at + ROWS);
    const answer = await ask("v1/embeddings", { ...fields, input, outputs, encoding_format: "base64" }, signal);
    add(cost, answer, input.length);
    found.push(...(await answer.json()).data.map(read));
  }
  return found;
}

// ---- numbers -----------------------------------------------------------------------------------------------------

function dot(a, b) {
  let sum = 0;
  if (a instanceof Map) for (const [index, value] of a) sum += value * (b.get(index) ?? 0);
  else for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function manhattan(a, b) {
  if (a instanceof Map)
    return [...new Set([...a.keys(), ...b.keys()])].reduce(
      (sum, i) => sum - Math.abs((a.get(i) ?? 0) - (b.get(i) ?? 0)),
      0,
    );
  return a.reduce((sum, value, i) => sum - Math.abs(value - b[i]), 0);
}

const MEASURES = {
  dot,
  manhattan,
  cosine: (a, b) => dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1),
  euclidean: (a, b) => -Math.sqrt(Math.max(0, dot(a, a) + dot(b, b) - 2 * dot(a, b))),
  // Late interaction: the mean over a's vectors of the largest dot product with one of b's.
  MaxSim: (a, b) =>
    a.length && b.length
      ? a.reduce((sum, one) => sum + Math.max(...b.map((other) => dot(one, other))), 0) / a.length
      : 0,
};

const CAPABLE = { dense: "embed", sparse: "sparse", colbert: "colbert" };
const headsOf = (model) => Object.keys(CAPABLE).filter((head) => model.capabilities.includes(CAPABLE[head]));

// How a model compares what a head gives: alone as it says itself, of several as BGE-M3 does.
function measureOf(model, head) {
  if (head === "colbert") return "MaxSim";
  return head === "sparse" && headsOf(model).length > 1 ? "dot" : model.similarity;
}

const score = (model, head, a, b) => MEASURES[measureOf(model, head)](a[head], b[head]);

function top(scores, count = BEST) {
  return scores
    .map((_, i) => i)
    .sort((a, b) => scores[b] - scores[a] || a - b)
    .slice(0, count);
}

// ---- what was typed ----------------------------------------------------------------------------------------------

function lines(id) {
  const found = $(id)
    .value.split(/\r?\n/)
    .filter((line) => line.trim());
  if (!found.length) throw new Refused("There is no text. Write one a line.");
  if (found.length > LINES) {
    throw new Refused(
      `There are ${number(found.length)} lines, and this page takes ${LINES}. A client takes any number: see Copy as.`,
    );
  }
  return found;
}

// The model's name, which says the side of a search, and a prompt of another name.
function fields(id) {
  const [kind, name] = [$(id).value.slice(0, 1), $(id).value.slice(1)];
  return kind === "=" ? { model: state.model.id, prompt_name: name } : { model: `${state.model.id}${$(id).value}` };
}

// ---- code for what is on screen ----------------------------------------------------------------------------------

const guarded = () => state.key !== "";
const python = (value, indent = "    ") => {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (!value || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) {
    const listed = value.map((one) => python(one, `${indent}    `));
    return value.length < 2
      ? `[${listed.join("")}]`
      : `[\n${listed.map((one) => `${indent}${one},\n`).join("")}${indent.slice(4)}]`;
  }
  return `{${Object.entries(value)
    .map(([name, one]) => `${JSON.stringify(name)}: ${python(one, `${indent}    `)}`)
    .join(", ")}}`;
};

function curl(path, body) {
  const key = guarded() ? ` \\\n  -H "Authorization: Bearer $TRIVEC_API_KEY"` : "";
  const address = `'${site.replaceAll("'", "%27")}/${path}'`;
  const data = `<<'JSON'\n${JSON.stringify(body)}\nJSON\n`; // a line, which no quote in it can end
  return `curl -s ${address} \\\n  -H 'Content-Type: application/json'${key} \\\n  --data-binary @- ${data}`;
}

const secret = () => (guarded() ? 'os.environ["TRIVEC_API_KEY"]' : '"none"');
const imports = (...others) => [...(guarded() ? ["import os", ""] : []), ...others, ""].join("\n");

function openai(body) {
  return `${imports("import numpy as np", "from openai import OpenAI")}
client = OpenAI(base_url=${python(`${site}/v1`)}, api_key=${secret()})
${body}`;
}

function created(name, texts, { model, ...others }, more = "") {
  const extra = Object.keys(others).length ? `, extra_body=${python(others)}` : "";
  return `${name} = client.embeddings.create(model=${python(model)}, input=${python(texts)}${more}${extra})\n`;
}

function langchain(parts) {
  const options = ({ model, ...others }) => {
    const extra = Object.keys(others).length ? `, model_kwargs={"extra_body": ${python(others)}}` : "";
    return `OpenAIEmbeddings(model=${python(model)}, check_embedding_ctx_length=False, **server${extra})`;
  };
  return `${imports("import numpy as np", "from langchain_openai import OpenAIEmbeddings")}
server = {"base_url": ${python(`${site}/v1`)}, "api_key": ${secret()}}
${parts(options)}`;
}

// A matrix of products where these are what is shown.
const matrix = (name) =>
  name === "dot" || name === "cosine" ? "print((vectors @ vectors.T).round(2))\n" : "print(vectors.shape)\n";
