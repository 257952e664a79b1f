// The page of a server, third part: the views of sparse terms and of a search.

// ---- Sparse ------------------------------------------------------------------------------------------------------

async function sparse(signal) {
  const cost = tally(),
    asked = [];
  for (const id of ["sparse-first", "sparse-second"]) {
    if ($(id).value.trim())
      asked.push({
        ...fields(`${id}-side`),
        input: [$(id).value],
        outputs: ["sparse"],
        return_tokens: true,
        encoding_format: "float",
      });
  }
  if (!asked.length) throw new Refused("There is no text. Write one, or two.");
  const rows = [];
  for (const body of asked) {
    const answer = await ask("v1/embeddings", body, signal);
    add(cost, answer, 1);
    const { indices, values, tokens: names } = (await answer.json()).data[0].sparse_embedding;
    rows.push(indices.map((index, i) => ({ index, name: names[i], value: values[i] })));
  }
  const titles = rows.length > 1 ? ["The first text", "The second"] : ["The text"];
  const nodes = rows.map((row, i) => bars(titles[i], plural(row.length, "term"), row));
  if (rows.length > 1) {
    const others = new Map(rows[1].map(({ index, value }) => [index, value]));
    const common = rows[0]
      .filter(({ index }) => others.has(index))
      .map((term) => ({ ...term, value: term.value * others.get(term.index) }));
    const sum = common.reduce((total, { value }) => total + value, 0);
    nodes.push(bars("Both", `${plural(common.length, "term")}, dot product ${sum.toFixed(4)}`, common));
  }
  const code = {
    curl: () => asked.map((body) => curl("v1/embeddings", body)).join("\n"),
    python: () => openai(asked.map(sparsePython).join("\n")).replace("import numpy as np\n", ""),
  };
  return { said: spent(cost), code, nodes: [made("div", { className: "columns", children: nodes })] };
}

// The openai package looks for dense vectors in an answer unless it is told a format.
function sparsePython({ input, encoding_format, ...others }) {
  return `${created("answer", input, others, `, encoding_format=${python(encoding_format)}`)}
row = answer.data[0].sparse_embedding
terms = dict(zip(row["tokens"], row["values"]))
print(sorted(terms.items(), key=lambda term: -term[1])[:10])
`;
}

function bars(title, note, row) {
  const heaviest = [...row].sort((a, b) => b.value - a.value || a.index - b.index).slice(0, TERMS);
  const most = Math.max(...heaviest.map(({ value }) => value), 1e-9);
  const listed = heaviest.map(({ name, value, index }) =>
    made("li", {
      title: `id ${index}`,
      style: { "--v": Math.max(0, value / most) },
      children: [made("bdi", { text: visible(name) }), made("span", { text: value.toFixed(4) })],
    }),
  );
  return made("section", {
    children: [
      made("h2", { text: title, children: [" ", made("small", { text: note })] }),
      made("ol", { className: "bars", children: listed }),
    ],
  });
}

// ---- Search ------------------------------------------------------------------------------------------------------

const kept = { of: "", vectors: new Map() }; // of lines that were asked for last

async function search(signal) {
  const { model } = state,
    texts = lines("search-texts"),
    question = $("search-question").value,
    cost = tally();
  if (!question.trim()) throw new Refused("There is no question. Write one above the texts.");
  const long = texts.reduce((sum, text) => sum + text.length, 0) > LETTERS;
  const heads = headsOf(model).filter((head) => head !== "colbert" || !long);
  const ours = { model: `${model.id}:query` },
    theirs = { model: `${model.id}:document` };
  const scores = {},
    asked = [];
  if (heads.length) {
    const found = await documents(texts, theirs, heads, cost, signal);
    const [query] = await embed([question], ours, heads, cost, signal);
    for (const head of heads) scores[head] = found.map((one) => score(model, head, query, one));
    if (heads.length > 1)
      scores.hybrid = texts.map((_, i) => heads.reduce((sum, head) => sum + scores[head][i], 0) / heads.length);
    const outputs = heads.join() === "dense" ? {} : { outputs: heads };
    asked.push(
      ["v1/embeddings", { ...ours, input: question, ...outputs }],
      ["v1/embeddings", { ...theirs, input: texts, ...outputs }],
    );
  }
  const columns = Object.entries(scores).map(([head, found]) => {
    const note = head === "hybrid" ? `the mean of ${heads.length}` : measureOf(model, head);
    return ranking(
      NAMES[head],
      note,
      top(found).map((i) => ({ i, value: found[i] })),
      texts,
    );
  });
  const reranker = heads.length ? $("search-reranker").value : model.id;
  if (reranker) {
    const last = Object.values(scores).at(-1);
    const places = last ? top(last, CANDIDATES) : texts.map((_, i) => i);
    const body = { model: reranker, query: question, documents: places.map((i) => texts[i]), top_n: BEST };
    const answer = await ask("v1/rerank", body, signal);
    add(cost, answer, places.length);
    const order = (await answer.json()).results.map(({ index, relevance_score: value }) => ({
      i: places[index],
      value,
    }));
    columns.push(
      ranking(
        NAMES.reranked,
        `by ${reranker}${places.length < texts.length ? `, of the first ${CANDIDATES}` : ""}`,
        order,
        texts,
      ),
    );
    asked.push(["v1/rerank", body]);
  }
  const left =
    long && model.capabilities.includes("colbert")
      ? `ColBERT left out: the lines have more than ${number(LETTERS)} letters · `
      : "";
  return {
    said: spent(cost, left),
    code: searchCode(asked, heads, question, texts, ours, theirs),
    nodes: [made("div", { className: "columns", children: columns })],
  };
}

function searchCode(asked, heads, question, texts, ours, theirs) {
  const code = { curl: () => asked.map(([path, body]) => curl(path, body)).join("\n") };
  if (!["dot", "cosine"].includes(heads.includes("dense") && measureOf(state.model, "dense"))) return code;
  const ranked = `for i in np.argsort(-scores, kind="stable")[:${BEST}]:
    print(round(float(scores[i]), 4), texts[i])
`;
  code.python = () =>
    openai(`texts = ${python(texts)}
${created("question", [question], ours)}found = client.embeddings.create(model=${python(theirs.model)}, input=texts)
scores = np.array([item.embedding for item in found.data]) @ np.array(question.data[0].embedding)
${ranked}`);
  code.langchain = () =>
    langchain(
      (options) => `questions = ${options(ours)}
documents = ${options(theirs)}
texts = ${python(texts)}
scores = np.array(documents.embed_documents(texts)) @ np.array(questions.embed_query(${python(question)}))
${ranked}`,
    );
  return code;
}

// Vectors of lines; those that were asked for last are not asked for again while the model is the same.
async function documents(texts, theirs, heads, cost, signal) {
  const now = await (await ask(`v1/models/${encodeURIComponent(state.model.id)}`, undefined, signal)).json();
  const of = JSON.stringify([theirs, heads, now.fingerprint, now.precision, now.device]);
  const before = of === kept.of ? kept.vectors : new Map();
  const fresh = [...new Set(texts)].filter((text) => !before.has(text));
  const found = await embed(fresh, theirs, heads, cost, signal);
  const vectors = new Map(texts.map((text) => [text, before.get(text)]));
  fresh.forEach((text, i) => vectors.set(text, found[i]));
  Object.assign(kept, { of, vectors });
  return texts.map((text) => vectors.get(text));
}

function ranking(title, note, order, texts) {
  const listed = order.map(({ i, value }) => {
    const item = made("li", {
      children: [made("b", { text: value.toFixed(4) }), made("span", { dir: "auto", text: texts[i].slice(0, 1000) })],
    });
    item.dataset.row = i;
    return item;
  });
  return made("section", {
    children: [
      made("h2", { text: title, children: [" ", made("small", { text: note })] }),
      made("ol", { className: "hits", children: listed }),
    ],
  });
}

// The same line in the other rankings.
$("search").addEventListener("pointerover", (event) => {
  const row = event.target.closest("[data-row]")?.dataset.row;
  for (const item of $("search").querySelectorAll("[data-row]"))
    item.classList.toggle("same", item.dataset.row === row);
});
