"use strict";
// A map of texts: N points of a plane, drawn on a canvas, found by a grid under the pointer and by words.
// Texts reach the page as textContent only, never as markup.

(async () => {
  const $ = (id) => document.getElementById(id);
  const REACH = 10; // pixels from the pointer within which a point is found
  const STEP = 50; // results that are listed at a time
  const TIP = 320; // letters of a text beside the pointer
  const MARGIN = 28; // pixels around the points when all are shown
  const CLOSEST = 4000; // times as near as at first

  // ---- data --------------------------------------------------------------------------------------------------------

  function bytes(id) {
    const text = atob($(id).textContent);
    const made = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) made[i] = text.charCodeAt(i);
    return made;
  }

  function inflated(id) {
    const stream = new Blob([bytes(id)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  }

  if (typeof DecompressionStream === "undefined") {
    $("count").textContent = "This browser is too old for the map: it needs Chrome 80, Firefox 113 or Safari 16.4.";
    return;
  }
  const points = new Float32Array(bytes("data-points").buffer); // x, y of each, from -1 to 1
  const rows = new Uint32Array(bytes("data-rows").buffer); // where in the file each is
  const { texts, cut } = await inflated("data-texts"); // cut: the lengths of texts that go on
  const N = rows.length;
  const number = (n) => n.toLocaleString("en");
  const plural = (n) => `${number(n)} ${n === 1 ? "text" : "texts"}`;

  // ---- the grid: points of a cell are listed[starts[cell]] to listed[starts[cell + 1] - 1] -------------------------

  const SIDE = Math.max(1, Math.min(1024, Math.ceil(Math.sqrt(N / 2))));
  const starts = new Uint32Array(SIDE * SIDE + 1);
  const listed = new Uint32Array(N);
  const cell = (v) => Math.max(0, Math.min(SIDE - 1, Math.floor((v + 1) / 2 * SIDE)));
  {
    for (let i = 0; i < N; i++) starts[cell(points[2 * i + 1]) * SIDE + cell(points[2 * i]) + 1]++;
    for (let c = 0; c < SIDE * SIDE; c++) starts[c + 1] += starts[c];
    const next = starts.slice();
    for (let i = 0; i < N; i++) listed[next[cell(points[2 * i + 1]) * SIDE + cell(points[2 * i])]++] = i;
  }

  // Points within `reach` of a place of the plane.
  function* near(x, y, reach) {
    const left = cell(x - reach), right = cell(x + reach), top = cell(y + reach);
    for (let row = cell(y - reach); row <= top; row++) {
      for (let k = starts[row * SIDE + left]; k < starts[row * SIDE + right + 1]; k++) yield listed[k];
    }
  }

  // ---- the view: pixel = origin + point * scale, y upwards ---------------------------------------------------------

  const view = { x: 0, y: 0, scale: 1, first: 1, width: 0, height: 0 };
  const state = { hovered: -1, pinned: -1, words: [], matches: null, isMatch: new Uint8Array(N), shown: 0 };
  const screenX = (i) => view.x + points[2 * i] * view.scale;
  const screenY = (i) => view.y - points[2 * i + 1] * view.scale;

  function fit() {
    let wide = 0, high = 0;
    for (let i = 0; i < N; i++) {
      wide = Math.max(wide, Math.abs(points[2 * i]));
      high = Math.max(high, Math.abs(points[2 * i + 1]));
    }
    const across = (view.width / 2 - MARGIN) / (wide || 1), down = (view.height / 2 - MARGIN) / (high || 1);
    view.first = view.scale = Math.max(1, Math.min(across, down));
    view.x = view.width / 2;
    view.y = view.height / 2;
    redraw();
  }

  function zoom(factor, x = view.width / 2, y = view.height / 2) {
    const scale = Math.max(view.first / 2, Math.min(view.first * CLOSEST, view.scale * factor));
    const real = scale / view.scale;
    view.x = x + (view.x - x) * real;
    view.y = y + (view.y - y) * real;
    view.scale = scale;
    redraw();
  }

  function move(x, y) {
    view.x += x;
    view.y += y;
    redraw();
  }

  // The nearest point to a pixel (of equally near ones a match, then the first row), and all within half a pixel of it.
  function found(x, y) {
    const px = (x - view.x) / view.scale, py = (view.y - y) / view.scale, reach = REACH / view.scale;
    let best = -1, least = REACH * REACH;
    for (const i of near(px, py, reach)) {
      const away = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
      const tie = best >= 0 && Math.abs(away - least) < 1e-6;
      const better = tie ? state.isMatch[i] - state.isMatch[best] || best - i : least - away;
      if (better > 0 || (best < 0 && away <= least)) {
        best = i;
        least = away;
      }
    }
    const stack = [];
    if (best >= 0) {
      for (const i of near(points[2 * best], points[2 * best + 1], 0.5 / view.scale)) {
        if (Math.hypot(screenX(i) - screenX(best), screenY(i) - screenY(best)) < 0.5) stack.push(i);
      }
    }
    return { best, stack: stack.sort((a, b) => a - b) };
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  const base = $("points").getContext("2d"), top = $("overlay").getContext("2d");
  const colors = {}, layers = { below: new Float32Array(0), above: new Float32Array(0) };
  const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)); // of #rrggbb
  let waiting = false;

  function readColors() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["dot", "dim", "match", "ring", "back"]) colors[name] = style.getPropertyValue(`--${name}`).trim();
  }

  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      drawPoints();
      drawOverlay();
    });
  }

  function radius() {
    const small = N < 2000 ? 4 : N < 20000 ? 2.7 : 1.7;
    return small * Math.min(3, Math.max(1, (view.scale / view.first) ** 0.3));
  }

  // How much of each pixel around its middle a dot covers: [offset x, offset y, part] after one another.
  function disc(size) {
    const reach = Math.ceil(size), made = [];
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const part = Math.max(0, Math.min(1, size + 0.5 - Math.hypot(x, y)));
        if (part > 0) made.push(x, y, part);
      }
    }
    return made;
  }

  // Add dots to a layer: its pixels hold -log of what shines through, so that the order of dots does not matter.
  function stamp(layer, wide, high, size, opacity, wanted) {
    const ratio = wide / view.width, pixels = disc(size * ratio), margin = Math.ceil(size * ratio) + 1;
    for (let k = 2; k < pixels.length; k += 3) pixels[k] = -Math.log(1 - opacity * pixels[k]);
    for (let i = 0; i < N; i++) {
      const x = Math.round(screenX(i) * ratio - 0.5), y = Math.round(screenY(i) * ratio - 0.5);
      if (x < -margin || y < -margin || x >= wide + margin || y >= high + margin || !wanted(i)) continue;
      for (let k = 0; k < pixels.length; k += 3) {
        const px = x + pixels[k], py = y + pixels[k + 1];
        if (px >= 0 && py >= 0 && px < wide && py < high) layer[py * wide + px] += pixels[k + 2];
      }
    }
  }

  // Pixel by pixel in memory: for 100,000 dots many times as fast as to draw each on the canvas.
  function drawPoints() {
    const { width: wide, height: high } = $("points"), image = base.createImageData(wide, high), out = image.data;
    const searched = state.matches !== null, size = radius(), area = wide * high;
    const below = layers.below.length === area ? layers.below.fill(0) : (layers.below = new Float32Array(area));
    const above = layers.above.length === area ? layers.above.fill(0) : (layers.above = new Float32Array(area));
    stamp(below, wide, high, size, N < 2000 ? 0.8 : N < 20000 ? 0.6 : 0.45, (i) => !searched || !state.isMatch[i]);
    if (searched) stamp(above, wide, high, size * 1.25, 0.98, (i) => state.isMatch[i]);
    const back = rgb(searched ? colors.dim : colors.dot), front = rgb(colors.match);
    for (let p = 0, q = 0; p < area; p++, q += 4) {
      if (below[p] === 0 && above[p] === 0) continue;
      const over = above[p] && 1 - Math.exp(-above[p]), under = (1 - over) * (1 - Math.exp(-below[p])), whole = over + under;
      for (let c = 0; c < 3; c++) out[q + c] = (over * front[c] + under * back[c]) / whole;
      out[q + 3] = 255 * whole;
    }
    base.putImageData(image, 0, 0);
  }

  function ring(i, width) {
    top.beginPath();
    top.arc(screenX(i), screenY(i), radius() + 4, 0, 2 * Math.PI);
    top.lineWidth = width + 3;
    top.strokeStyle = colors.back;
    top.stroke();
    top.lineWidth = width;
    top.strokeStyle = colors.ring;
    top.stroke();
  }

  function drawOverlay() {
    top.clearRect(0, 0, view.width, view.height);
    if (state.hovered >= 0) ring(state.hovered, 1.5);
    if (state.pinned >= 0) ring(state.pinned, 3);
  }

  function resize() {
    const box = $("map").getBoundingClientRect();
    if (!box.width || !box.height) return;
    const first = view.width === 0, untouched = view.scale === view.first;
    for (const canvas of [$("points"), $("overlay")]) {
      canvas.width = Math.round(box.width * devicePixelRatio);
      canvas.height = Math.round(box.height * devicePixelRatio);
      canvas.getContext("2d").setTransform(canvas.width / box.width, 0, 0, canvas.height / box.height, 0, 0);
    }
    const [x, y] = [(box.width - view.width) / 2, (box.height - view.height) / 2];
    view.width = box.width;
    view.height = box.height;
    if (first || untouched) fit();
    else move(x, y);
    drawPoints(); // at once: setting the size has emptied the canvas
    drawOverlay();
  }

  // ---- texts -------------------------------------------------------------------------------------------------------

  const folded = (text) => (/[^\x00-\x7f]/.test(text) ? text.toLowerCase().normalize("NFC").replaceAll("ς", "σ") : text.toLowerCase());
  const place = (i) => `row ${number(rows[i])}`;
  let lowered = null; // made at the first search

  // Where words are in a text: [start, end] pairs, in order, apart from each other.
  function ranges(text, words) {
    const low = folded(text), all = [];
    if (low.length !== text.length) return all; // places in one are not those in the other
    for (const word of words) {
      for (let at = low.indexOf(word); at >= 0; at = low.indexOf(word, at + word.length)) all.push([at, at + word.length]);
    }
    all.sort((a, b) => a[0] - b[0]);
    const apart = [];
    for (const [start, end] of all) {
      const last = apart[apart.length - 1];
      if (last && start <= last[1]) last[1] = Math.max(last[1], end);
      else apart.push([start, end]);
    }
    return apart;
  }

  function put(element, text, words) {
    element.replaceChildren();
    let done = 0;
    for (const [start, end] of ranges(text, words)) {
      const mark = document.createElement("mark");
      mark.textContent = text.slice(start, end);
      element.append(text.slice(done, start), mark);
      done = end;
    }
    element.append(text.slice(done));
    if (!text.trim()) element.textContent = "(empty)";
  }

  // At most `length` letters, around the first word where there is one.
  function excerpt(text, words, length) {
    const hit = words.length ? ranges(text, words)[0] : undefined;
    let start = hit && hit[0] > length / 2 ? hit[0] - Math.floor(length / 4) : 0;
    let end = Math.min(text.length, start + length);
    const space = text.indexOf(" ", start), last = text.lastIndexOf(" ", end);
    if (start && space >= 0 && space < Math.min(hit[0], start + 20)) start = space + 1; // whole words, where there are
    if (end < text.length && last > end - 20 && last > (hit?.[1] ?? 0)) end = last;
    if (/[\uDC00-\uDFFF]/.test(text[start] ?? "")) start++; // no half of a pair
    if (end < text.length && /[\uD800-\uDBFF]/.test(text[end - 1])) end--;
    return (start ? "… " : "") + text.slice(start, end) + (end < text.length ? " …" : "");
  }

  function search() {
    state.words = folded($("query").value).split(/\s+/u).filter(Boolean);
    state.isMatch.fill(0);
    state.matches = null;
    if (state.words.length) {
      lowered ??= texts.map(folded);
      state.matches = [];
      for (let i = 0; i < N; i++) {
        if (state.words.every((word) => lowered[i].includes(word))) {
          state.matches.push(i);
          state.isMatch[i] = 1;
        }
      }
    }
    list();
    redraw();
    if (state.pinned >= 0) showPinned();
  }

  const rowCount = () => (state.matches ? state.matches.length : N);

  function list() {
    const count = rowCount();
    const none = count || !state.words.length ? "" : state.words.length > 1 ? " holds all of these words" : " holds this";
    $("count").textContent = none ? `No text${none}.` : state.matches ? `${number(count)} of ${plural(N)}` : plural(N);
    $("results").replaceChildren();
    state.shown = 0;
    more();
  }

  function more() {
    const count = rowCount(), stop = Math.min(count, state.shown + STEP), added = [];
    for (let k = state.shown; k < stop; k++) {
      const i = state.matches ? state.matches[k] : k;
      const item = document.createElement("li"), button = document.createElement("button");
      const text = document.createElement("span"), small = document.createElement("small");
      button.type = "button";
      button.dataset.index = String(i);
      button.classList.toggle("chosen", i === state.pinned);
      text.dir = "auto";
      put(text, excerpt(texts[i], state.words, 160), state.words);
      small.textContent = place(i);
      button.append(text, small);
      item.append(button);
      added.push(item);
    }
    $("results").append(...added);
    state.shown = stop;
    $("more").hidden = stop >= count;
    $("more").textContent = `Show ${number(Math.min(STEP, count - stop))} more of ${number(count)}`;
    return added[0];
  }

  function showPinned() {
    const i = state.pinned, article = $("pinned");
    article.hidden = i < 0;
    for (const button of $("results").querySelectorAll("button")) {
      button.classList.toggle("chosen", Number(button.dataset.index) === i);
    }
    if (i < 0) return;
    article.querySelector("h2").textContent = place(i)[0].toUpperCase() + place(i).slice(1);
    put(article.querySelector("p"), texts[i], state.words);
    const whole = cut[i];
    article.querySelector("small").textContent = whole
      ? `The first ${number([...texts[i]].length)} of ${number(whole)} letters; the page has no more.` : "";
  }

  function pin(i, seen = true) {
    state.pinned = i;
    showPinned();
    if (i >= 0 && !seen) {
      const [x, y] = [screenX(i), screenY(i)];
      const inside = x > MARGIN && y > MARGIN && x < view.width - MARGIN && y < view.height - MARGIN;
      if (!inside) move(view.width / 2 - x, view.height / 2 - y);
    }
    drawOverlay();
  }

  function hover(i, stack, x, y) {
    const tip = $("tip");
    if (i !== state.hovered) {
      state.hovered = i;
      tip.hidden = i < 0;
      $("overlay").style.cursor = i < 0 ? "" : "pointer";
      drawOverlay();
      if (i >= 0) {
        put(tip.querySelector("p"), excerpt(texts[i], state.words, TIP), state.words);
        const others = stack.length > 1 ? ` · ${number(stack.length - 1)} more here: click again for the next` : "";
        tip.querySelector("small").textContent = place(i) + others;
      }
    }
    if (i < 0) return;
    const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
    const left = x + 16 + wide > view.width ? Math.max(4, x - 16 - wide) : x + 16;
    const down = y + 16 + high > view.height ? Math.max(4, y - 16 - high) : y + 16;
    tip.style.transform = `translate(${left}px, ${down}px)`;
  }

  // ---- pointer, wheel, touch ---------------------------------------------------------------------------------------

  const overlay = $("overlay"), pointers = new Map();
  let travelled = 0;
  const at = (event) => {
    const box = overlay.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  function hoverAt({ x, y }) {
    const { best, stack } = found(x, y);
    hover(best, stack, x, y);
  }

  overlay.addEventListener("pointerdown", (event) => {
    overlay.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 1) travelled = 0;
  });

  overlay.addEventListener("pointermove", (event) => {
    const here = at(event), before = pointers.get(event.pointerId);
    if (!before) {
      hoverAt(here);
      return;
    }
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    travelled += Math.hypot(here.x - before.x, here.y - before.y);
    pointers.set(event.pointerId, here);
    if (travelled < 4) return;
    hover(-1, []);
    overlay.classList.add("drag");
    if (!other) move(here.x - before.x, here.y - before.y);
    else { // two fingers: the place between them stays between them
      const spread = (p) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
      move((here.x - before.x) / 2, (here.y - before.y) / 2);
      zoom(spread(here) / spread(before), (here.x + other.x) / 2, (here.y + other.y) / 2);
    }
  });

  function release(event) {
    const clicked = pointers.delete(event.pointerId) && event.type === "pointerup" && travelled < 4;
    if (pointers.size === 0) overlay.classList.remove("drag");
    if (!clicked || event.button > 0) return;
    const { x, y } = at(event), { best, stack } = found(x, y), again = stack.indexOf(state.pinned);
    pin(again >= 0 && stack.length > 1 ? stack[(again + 1) % stack.length] : best);
  }
  overlay.addEventListener("pointerup", release);
  overlay.addEventListener("pointercancel", release);
  overlay.addEventListener("pointerleave", () => hover(-1, []));

  overlay.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = at(event), lines = event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? 400 : 1;
    zoom(Math.exp(-Math.max(-400, Math.min(400, event.deltaY * lines)) * 0.002), x, y);
    hoverAt({ x, y });
  }, { passive: false });

  // ---- keys and buttons --------------------------------------------------------------------------------------------

  function clear() {
    $("query").value = "";
    pin(-1);
    search();
  }

  const KEYS = {
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": fit,
    ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target === $("query"), onMap = event.target === overlay || event.target === document.body;
    if (event.key === "Escape") clear();
    else if (event.key === "/" && !typing) $("query").focus();
    else if (onMap && KEYS[event.key]) KEYS[event.key]();
    else if (typing && event.key === "Enter") $("results").querySelector("button")?.click();
    else if (!onMap && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const item = event.target.closest("li"), down = event.key === "ArrowDown";
      if (!typing && !item) return;
      const next = typing ? down && $("results").firstElementChild
        : down ? item.nextElementSibling ?? more() : item.previousElementSibling;
      if (next) next.firstElementChild.focus();
      else if (!down) $("query").focus();
    } else return;
    event.preventDefault();
  });

  let timer = 0;
  $("query").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 80);
  });
  $("results").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) pin(Number(button.dataset.index), false);
  });
  $("more").addEventListener("click", () => more()?.firstElementChild.focus({ preventScroll: true }));
  $("unpin").addEventListener("click", () => pin(-1));
  $("closer").addEventListener("click", () => zoom(1.4));
  $("farther").addEventListener("click", () => zoom(1 / 1.4));
  $("reset").addEventListener("click", fit);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColors();
    redraw();
  });

  readColors();
  new ResizeObserver(resize).observe($("map"));
  resize();
  search();
  // For scripts and tests: where a text is on the screen.
  globalThis.trivecMap = Object.freeze({
    position(i) {
      const box = overlay.getBoundingClientRect();
      return { x: box.left + screenX(i), y: box.top + screenY(i) };
    },
  });
})();
