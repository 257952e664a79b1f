// The page of a server, last part: tabs, models, the key, and the server's figures.

// ---- tabs --------------------------------------------------------------------------------------------------------

const VIEWS = { similarity, tokens, sparse, search };
const CAN = {
  similarity: (model) => headsOf(model).length > 0,
  tokens: (model) => headsOf(model).length > 0, // a cross-encoder reads pairs
  sparse: (model) => model.capabilities.includes("sparse"),
  search: () => true,
};
const shown = {}; // by view: the model whose answer it has

async function run() {
  state.running?.abort();
  const mine = (state.running = new AbortController());
  const { tab, model } = state,
    panel = $(tab),
    out = panel.querySelector(".out");
  if (!model) return;
  const [said, body, copy] = out.children;
  shown[tab] = model.id;
  out.setAttribute("aria-busy", "true");
  out.classList.remove("stale");
  try {
    const found = await VIEWS[tab](mine.signal);
    mine.signal.throwIfAborted();
    said.textContent = found.said;
    said.classList.remove("bad");
    body.replaceChildren(...found.nodes);
    offer(copy, found.code);
  } catch (error) {
    if (mine.signal.aborted) {
      if (state.tab !== tab) delete shown[tab]; // to be asked again when it is looked at
      return;
    }
    said.textContent = error instanceof Refused ? error.message : `The page failed: ${error}`;
    said.classList.add("bad");
    body.replaceChildren();
    copy.hidden = true;
    if (error.wantsKey) enterKey();
    if (!(error instanceof Refused)) throw error;
  } finally {
    if (state.running === mine || state.tab !== tab) out.setAttribute("aria-busy", "false");
  }
  look();
}

function offer(copy, code) {
  copy.hidden = false;
  copy.querySelector("pre").hidden = true;
  copy.querySelector(".copied").textContent = "";
  for (const button of copy.querySelectorAll("button")) {
    const text = code[button.dataset.form];
    button.disabled = !text;
    button.title = text ? "" : "It has no call for this";
    button.onclick = () => copied(copy, text());
  }
}

async function copied(copy, text) {
  const shownAs = copy.querySelector("pre");
  shownAs.textContent = text;
  shownAs.hidden = false;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // not allowed, or a page without TLS
    getSelection().selectAllChildren(shownAs);
    done = document.execCommand("copy");
  }
  copy.querySelector(".copied").textContent = done ? "Copied" : "Copy it from here";
}

function show(tab, { focus = false } = {}) {
  state.tab = tab;
  for (const name of Object.keys(VIEWS)) {
    const button = $(`tab-${name}`);
    button.setAttribute("aria-selected", String(name === tab));
    button.tabIndex = name === tab ? 0 : -1;
    button.hidden = state.model !== null && !CAN[name](state.model);
    $(name).hidden = name !== tab || state.model === null;
  }
  if (focus) $(`tab-${tab}`).focus();
  history.replaceState(null, "", `#/${tab}`); // no element's id: the browser would go there, and take the focus away
  if (state.model && shown[tab] !== state.model.id) run();
}

$("tabs").addEventListener("click", (event) => {
  const name = event.target.getAttribute("aria-controls");
  if (name) show(name);
});
$("tabs").addEventListener("keydown", (event) => {
  const open = Object.keys(VIEWS).filter((name) => !$(`tab-${name}`).hidden),
    at = open.indexOf(state.tab);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + open.length, Home: 0, End: open.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(open[to % open.length], { focus: true });
});

for (const name of Object.keys(VIEWS)) {
  const panel = $(name),
    form = panel.querySelector("form"),
    out = panel.querySelector(".out");
  out.append($("around").content.cloneNode(true));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("input", (event) => {
    if (event.target.tagName === "SELECT") run();
    else out.classList.add("stale");
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

// ---- models and key ----------------------------------------------------------------------------------------------

// Pairs of a value and its name; what was chosen stays chosen where it is there still.
function offerOptions(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => made("option", { value, text })));
  select.value = before;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

function choose(model) {
  state.model = model;
  const of = (name, value, title = "") =>
    made("div", { title, children: [made("dt", { text: name }), made("dd", { text: value })] });
  $("facts").replaceChildren(
    ...(model.dim ? [of("dim", number(model.dim))] : []),
    of("precision", model.precision),
    of("device", model.device),
    ...(model.max_model_len ? [of("reads", plural(model.max_model_len, "token"))] : []),
    of("fingerprint", model.fingerprint.slice(0, 12), model.fingerprint),
  );
  const others = model.prompts.filter((name) => !["query", "document", "passage", "corpus"].includes(name));
  for (const select of document.querySelectorAll("select.side")) {
    offerOptions(select, [
      ["", "plain text"],
      [":query", "a query"],
      [":document", "a document"],
      ...others.map((name) => [`=${name}`, name]),
    ]);
  }
  const heads = headsOf(model);
  offerOptions(
    $("similarity-head"),
    heads.map((head) => [head, `${NAMES[head]}, ${measureOf(model, head)}`]),
  );
  $("similarity-head").parentElement.hidden = heads.length < 2;
  const rerankers = state.models.filter((one) => one.capabilities.includes("rerank"));
  offerOptions($("search-reranker"), [["", "nothing"], ...rerankers.map(({ id }) => [id, id])]);
  $("search-by").hidden = !rerankers.length || !heads.length;
  const open = Object.keys(VIEWS).filter((name) => CAN[name](model));
  show(open.includes(state.tab) ? state.tab : open[0]);
}

async function start() {
  const key = state.key;
  state.running?.abort();
  for (const name of Object.keys(shown)) delete shown[name];
  try {
    const { data } = await (await ask("v1/models")).json();
    if (key !== state.key) return;
    state.models = data;
  } catch (error) {
    if (key !== state.key) return;
    say(error.message, !error.loading);
    if (error.wantsKey) enterKey();
    if (error.loading) setTimeout(() => key === state.key && start(), 1000);
    if (!error.loading && !(error instanceof Refused)) throw error;
    return;
  }
  say("");
  state.figures = true;
  offerOptions(
    $("model"),
    state.models.map(({ id }) => [id, id]),
  );
  $("pick").hidden = false;
  choose(picked());
}

function say(text, bad = false) {
  $("news").textContent = text;
  $("news").classList.toggle("bad", bad);
  $("tabs").hidden = text !== "";
  if (!text) return;
  state.model = null;
  $("pick").hidden = true;
  $("facts").replaceChildren();
  for (const name of Object.keys(VIEWS)) $(name).hidden = true;
}

function enterKey() {
  $("login").hidden = false;
  $("key").focus();
}

const picked = () => state.models.find(({ id }) => id === $("model").value);
$("model").addEventListener("change", () => choose(picked()));
$("login").addEventListener("submit", (event) => event.preventDefault());
$("key").addEventListener("change", () => {
  state.key = $("key").value.trim();
  start();
});

// ---- the server's figures ----------------------------------------------------------------------------------------

function* series(text) {
  for (const [, name, labels = "", value] of text.matchAll(/^(trivec_\w+)(?:\{(.*)\})? (\S+)$/gm)) {
    const found = {};
    for (const [, label, said] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      found[label] = said.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    yield { name, value: Number(value), ...found };
  }
}

async function look() {
  if (!state.model || !state.figures || document.hidden) return;
  let text;
  try {
    text = await (await ask("metrics")).text();
  } catch {
    // they may be kept on another port, or for others
    state.figures = false;
    $("figures").hidden = true;
    return;
  }
  const told = (name) => ours.filter((one) => one.name === name).reduce((sum, { value }) => sum + value, 0);
  const name = $("model").value,
    all = [...series(text)],
    known = all.some(({ model }) => model === name);
  const ours = all.filter(({ model }) => !known || model === name); // of an alias: those of all models
  const count = told("trivec_request_duration_seconds_count"),
    within = new Map();
  for (const { name, le, value } of ours)
    if (name === "trivec_request_duration_seconds_bucket") within.set(le, (within.get(le) ?? 0) + value);
  const bound = [...within].find(([, value]) => value >= 0.95 * count)?.[0];
  const ms = (seconds) =>
    seconds * 1000 < 10 ? `${(seconds * 1000).toFixed(1)} ms` : `${number(Math.round(seconds * 1000))} ms`;
  const mean = (name, total = told(`${name}_count`)) => ms(total ? told(`${name}_sum`) / total : 0);
  const said = [
    `Queue: ${plural(told("trivec_queue_texts"), "text")}, ${plural(told("trivec_queue_tokens"), "token")}`,
    `${ms(told("trivec_estimated_wait_seconds"))} to wait`,
    `${plural(count, "request")} since the start`,
  ];
  if (count)
    said.push(
      `${mean("trivec_request_duration_seconds")} each on average`,
      bound === "+Inf" ? "some over a minute" : `95 % within ${ms(Number(bound))}`,
      `${mean("trivec_queue_duration_seconds")} of it in the queue`,
    );
  $("figures").replaceChildren(...said.map((part) => made("span", { text: part })));
  $("figures").hidden = false;
}
setInterval(look, POLL);

// ---- begin -------------------------------------------------------------------------------------------------------

const asked = location.hash.slice(2);
show(asked in VIEWS ? asked : "similarity");
if (document.documentElement.dataset.key === "wanted") {
  say("This server wants a key. Type it above, and press Enter.");
  enterKey();
} else {
  $("login").hidden = true;
  start();
}
