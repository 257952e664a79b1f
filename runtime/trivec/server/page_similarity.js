// The page of a server, second part: the views of similarities and of tokens. A view asks, and gives `said`, a line;
// `nodes`; and `code`, by its form a function that writes it.

// ---- Similarity --------------------------------------------------------------------------------------------------

async function similarity(signal) {
  const { model } = state,
    texts = lines("similarity-texts"),
    ours = fields("similarity-side");
  const head = $("similarity-head").value,
    cost = tally();
  const found = await embed(texts, ours, [head], cost, signal);
  if (head === "colbert" && found.reduce((sum, { colbert }) => sum + colbert.length, 0) > MOST) {
    throw new Refused(
      "By ColBERT every token meets every other: too much here for a page. Take fewer or shorter texts.",
    );
  }
  const values = found.map((a) => found.map((b) => score(model, head, a, b)));
  const body = { ...ours, input: texts, ...(head === "dense" ? {} : { outputs: [head] }) };
  const name = measureOf(model, head);
  const code = { curl: () => curl("v1/embeddings", body) };
  if (head === "dense") {
    code.python = () => {
      const vectors = "vectors = np.array([item.embedding for item in answer.data])\n";
      return openai(`${created("answer", texts, ours)}${vectors}${matrix(name)}`);
    };
    code.langchain = () =>
      langchain((options) => {
        const vectors = `vectors = np.array(model.embed_documents(${python(texts)}))\n`;
        return `model = ${options(ours)}\n${vectors}${matrix(name)}`;
      });
  }
  return {
    said: spent(cost, `${NAMES[head]}, ${name} · `),
    code,
    nodes: texts.length <= CELLS ? table(texts, values) : plot(texts, values),
  };
}

// The least and the greatest number off the diagonal, and how far between them a number is.
function scale(values) {
  let low = Infinity,
    high = -Infinity;
  values.forEach((row, i) =>
    row.forEach((value, j) => {
      if (i === j) return;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }),
  );
  return { low, high, part: (value) => (high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) : 1) };
}

function legend({ low, high }) {
  if (low > high) return [];
  return [made("p", { className: "legend", children: [low.toFixed(2), made("i"), high.toFixed(2)] })];
}

function table(texts, values) {
  const shades = scale(values);
  const head = made("tr", {
    children: [
      made("th"),
      ...texts.map((text, i) => made("th", { scope: "col", text: i + 1, title: text.slice(0, 300) })),
    ],
  });
  const rows = texts.map((text, i) =>
    made("tr", {
      children: [
        made("th", {
          scope: "row",
          title: text.slice(0, 300),
          children: [made("small", { text: i + 1 }), " ", made("bdi", { text: text.slice(0, 300) })],
        }),
        ...values[i].map((value) =>
          made("td", { text: value.toFixed(2), title: value.toFixed(6), style: { "--v": shades.part(value) } }),
        ),
      ],
    }),
  );
  const drawn = made("table", { children: [made("thead", { children: [head] }), made("tbody", { children: rows })] });
  return [
    made("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Similarities", children: [drawn] }),
    ...legend(shades),
  ];
}

// Many lines: a pixel a pair. The pointer or the arrow keys choose one, whose number and texts are written above.
function plot(texts, values) {
  const N = texts.length,
    shades = scale(values),
    chosen = { row: 0, column: 1 };
  const canvas = made("canvas", { width: N, height: N }),
    mark = made("i", { style: { "--w": 1 / N } });
  const box = made("div", {
    className: "plot",
    tabIndex: 0,
    role: "img",
    ariaLabel: `${N} by ${N} similarities. Arrow keys choose a pair.`,
    children: [canvas, mark],
  });
  const pair = made("div", {
    className: "pair",
    role: "status",
    children: [made("b"), made("bdi", { className: "clip" }), made("bdi", { className: "clip" })],
  });
  const named = (i) => `${i + 1}  ${texts[i].slice(0, 300)}`;
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const [from, to] = ["--panel", "--heat"]
      .map((name) => style.getPropertyValue(name).trim())
      .map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
    const image = new ImageData(N, N);
    values
      .flat()
      .forEach((value, i) => image.data.set([...from.map((c, k) => c + (to[k] - c) * shades.part(value)), 255], 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
  };
  const choose = (row, column) => {
    chosen.row = Math.max(0, Math.min(N - 1, row));
    chosen.column = Math.max(0, Math.min(N - 1, column));
    mark.style.setProperty("--x", chosen.column / N);
    mark.style.setProperty("--y", chosen.row / N);
    const [value, first, second] = pair.children;
    value.textContent = values[chosen.row][chosen.column].toFixed(4);
    first.textContent = named(chosen.row);
    second.textContent = named(chosen.column);
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    choose(chosen.row + step[0], chosen.column + step[1]);
  });
  box.addEventListener("pointermove", (event) => {
    const { left, top: above, width, height } = canvas.getBoundingClientRect();
    choose(Math.floor(((event.clientY - above) / height) * N), Math.floor(((event.clientX - left) / width) * N));
  });
  redraw = draw;
  draw();
  choose(0, 1);
  return [pair, box, ...legend(shades)];
}

let redraw = () => {};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

// ---- Tokens ------------------------------------------------------------------------------------------------------

async function tokens(signal) {
  const { model } = state,
    body = { ...fields("tokens-side"), inputs: $("tokens-text").value };
  const [found] = await (await ask("tokenize", body, signal)).json();
  const special = found.filter((token) => token.special).length,
    text = found.length - special;
  const most = model.max_model_len,
    side = model.truncation_direction;
  const room = most === null || side === null ? Infinity : most - special;
  let place = 0;
  const listed = found.slice(0, PIECES).map((token) => {
    const at = token.special ? -1 : place++;
    const cut = !token.special && (side === "left" ? at < text - room : at >= room);
    const where = token.special ? "special" : `${token.start}–${token.stop}`;
    return made("li", {
      className: token.special ? "special" : cut ? "cut" : "",
      title: `${cut ? "cut off: " : ""}id ${token.id}${token.special ? "" : `, letters ${where}`}`,
      children: [
        made("bdi", { text: visible(token.text) }),
        made("small", { text: token.id }),
        made("small", { text: where }),
      ],
    });
  });
  const over = Math.max(0, text - room),
    total = `${plural(found.length, "token")}, ${number(special)} of them special`;
  let end = `; the model reads ${number(most ?? 0)}${over ? `, and ${number(over)} are cut off` : ""}`;
  if (most === null) end = "; the model reads any number";
  else if (side === null && found.length > most)
    end = `; the model reads ${number(most)}, by rules of its own: what it cuts off is not shown`;
  const hidden = found.length > PIECES ? `. The first ${number(PIECES)} are shown` : "";
  return {
    said: `${total}${end}${hidden}`,
    code: { curl: () => curl("tokenize", body) },
    nodes: [made("ol", { className: "pieces", children: listed })],
  };
}

// White space as a sign, where nothing else would be seen.
const visible = (text) => (text.trim() ? text : text.replaceAll("\n", "↵").replace(/\s/g, "␣") || "∅");
