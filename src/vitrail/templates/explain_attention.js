// The tab of attention: where a patch, a token or a symbol looks.
let active = 0; // which of the shown images the pointer was on last

const views = new Pictures($("views"), (picture) => {
  picture.onPoint = (point, event) => {
    active = shownImages().indexOf(picture.number);
    pointer = point;
    if (event.type === "pointerdown" && event.pointerType !== "touch") return;
    change(state.pin2 ? null : { at: point });
  };
  picture.onLeave = () => { pointer = null; change(); };
  picture.onClick = (point) => { pointer = point; pinPlace(point); };
  picture.frame.setAttribute("aria-roledescription", "attention map");
});

const attentionOf = (image) => DATA.images[image].attention[state.layer] || null;
const place = (point) => ({ kind: "place", x: point.x, y: point.y });

// Who looks where nothing is pinned.
function liveQuery(att) {
  if (att.rows === "pool") return { kind: "pool" };
  if (att.rows === "symbols") return { kind: "symbol", i: Math.min(state.symbol, att.shape[1] - 1) };
  if (state.who !== "patch" && att.tokens.includes(state.who)) return { kind: "token", name: state.who };
  return place(state.at);
}

// The head that was chosen, or the mean in a layer that has fewer.
const headOf = (att) => (state.head < att.shape[0] ? state.head : -1);

// The queries that stand side by side: what is pinned, and what is looked at.
function queries(att) {
  const live = liveQuery(att);
  if (!state.pin || att.rows === "pool") return [{ query: live, pinned: false }];
  const second = state.pin2 ? { query: state.pin2, pinned: true } : { query: live, pinned: false };
  return [{ query: state.pin, pinned: true }, second];
}

function sameQuery(att, size, a, b) {
  return Boolean(a && b) && rowOf(att, size, a) === rowOf(att, size, b);
}

function pinPlace(point) {
  const att = attentionOf(state.a);
  if (!att || att.rows === "pool") return;
  pinQuery(att.rows === "symbols" ? liveQuery(att) : place(point));
}

function pinQuery(query) {
  const att = attentionOf(state.a), size = DATA.images[state.a].size;
  if (!att) return;
  if (!state.pin) change({ pin: query });
  else if (sameQuery(att, size, state.pin, query)) change({ pin: state.pin2, pin2: null });
  else if (sameQuery(att, size, state.pin2, query)) change({ pin2: null });
  else change({ pin2: query });
}

function queryWords(att, image, query) {
  if (query.kind === "pool") return "The pooling's own query";
  if (query.kind === "token") return `The ${query.name} token`;
  if (query.kind === "symbol") {
    const symbol = image.written[query.i];
    return symbol === "" ? "Writing the end" : `Writing “${symbol}”`;
  }
  return placeWords(att, image, query);
}

function titleWords(att, image, query, pinned) {
  const words = queryWords(att, image, query);
  return pinned ? `Pinned: ${words}` : query.kind === "place" ? `Patch: ${words}` : words;
}

function placeWords(att, image, point) {
  const p = placeAt(att, image.size, point), n = att.grid[1];
  const b = att.block > 1 ? `square of ${att.block} × ${att.block} around ` : "";
  return `${b}row ${Math.floor(p / n) + 1}, column ${p % n + 1}`;
}

const headWords = (head) => (head < 0 ? "mean of the heads" : `head ${head + 1}`);

function renderAttention() {
  const started = performance.now();
  renderBar();
  const slots = [];
  for (const number of shownImages()) {
    const att = attentionOf(number);
    const weights = att && weightsOf(att, () => change());
    for (const one of att ? queries(att) : [{ query: place(state.at), pinned: false }]) {
      slots.push({ number, image: DATA.images[number], att, weights, ...one });
    }
  }
  for (const slot of slots) read(slot);
  const top = Math.max(0, ...slots.map((slot) => slot.top || 0));
  const pictures = views.take(slots.length), stage = $("views").parentNode;
  stage.dataset.count = slots.length;
  stage.classList.toggle("line", slots.some((slot) => isLine(slot.image)));
  slots.forEach((slot, i) => drawSlot(pictures[i], slot, state.shared ? top : slot.top));
  renderTiles(slots);
  renderText(slots[0]);
  renderHint(slots[0]);
  $("views").dataset.ms = (performance.now() - started).toFixed(2);
}

function read(slot) {
  if (!slot.att || !slot.weights) return;
  slot.row = rowOf(slot.att, slot.image.size, slot.query);
  if (slot.row < 0) return;
  slot.values = slot.weights.row(headOf(slot.att), slot.row);
  slot.top = slot.att.keys === "places" ? topOf(slot.att, slot.values) : Math.max(...slot.values);
}

function drawSlot(picture, slot, top) {
  const { image, att, query, pinned, values } = slot;
  picture.number = slot.number;
  picture.show(image, state.opacity);
  picture.file.textContent = shownImages().length > 1 ? fileName(image.id) : "";
  picture.words.textContent = att ? titleWords(att, image, query, pinned) : "The attention of this layer was left out";
  picture.root.classList.toggle("pinned", pinned);
  if (!values || att.keys !== "places") {
    clear(picture.heat);
    picture.mark("query", null);
    picture.mark("key", null);
    picture.ends(0, null);
    picture.tell(att && slot.row < 0 ? [["none", "This layer has no such query", ""]] : []);
    return;
  }
  picture.place(att.grid, [att.stride, att.stride]);
  drawRow(picture.heat, att, slot.row, values, top, state.root);
  picture.mark("query", query.kind === "place" ? pixelsOf(att, image.size, placeAt(att, image.size, query)) : null, pinned ? "pinned" : "");
  const reads = pointer && (pinned || query.kind !== "place");
  picture.mark("key", reads ? pixelsOf(att, image.size, placeAt(att, image.size, pointer)) : null);
  picture.ends(0, top, state.root);
  picture.tell(numbersOf(slot));
  picture.frame.setAttribute("aria-label", `${picture.words.textContent}, ${DATA.layers[state.layer].name}, ${headWords(headOf(att))}`);
}

// What stands under a picture.
function numbersOf(slot) {
  const { image, att, query, row, values } = slot, rows = [], size = image.size;
  const weightAt = (p) => {
    const key = keyOf(att, row, p);
    return key < 0 ? 0 : values[key];
  };
  if (pointer) {
    const p = placeAt(att, size, pointer);
    const own = query.kind === "place" && sameQuery(att, size, query, place(pointer));
    const outside = keyOf(att, row, p) < 0 ? " (outside its window)" : "";
    rows.push(["key", own ? "to itself" : `to ${placeWords(att, image, pointer)}`, weightAt(p), `pixel ${pixelWords(pixelsOf(att, size, p))}${outside}`]);
  } else if (query.kind === "place") {
    const p = placeAt(att, size, query);
    rows.push(["key", "to itself", weightAt(p), `pixel ${pixelWords(pixelsOf(att, size, p))}`]);
  }
  let best = -1;
  let places = 0, sum = 0;
  for (let k = 0; k < values.length; k++) {
    sum += values[k];
    if (k >= att.others.length) {
      places += values[k];
      if (best < 0 || values[k] > values[best]) best = k;
    }
  }
  const where = placeOfKey(att, row, best);
  if (where >= 0) rows.push(["most", "most", values[best], `row ${Math.floor(where / att.grid[1]) + 1}, column ${where % att.grid[1] + 1}`]);
  att.others.forEach((name, i) => rows.push([`to-${name}`, `to ${name === "padding" ? "padding" : `the ${name} token`}`, values[i]]));
  rows.push(["places", att.others.length ? "to all places" : "", places], ["sum", "row sum", sum, sum > 0 && sum < 0.999 ? "below 1: this attention divides by its sum and a small constant" : ""]);
  return att.others.length ? rows : rows.filter(([name]) => name !== "places");
}

function placeOfKey(att, row, key) {
  const lattice = latticeOf(att), window = windowOf(att, row), block = key - att.others.length;
  return lattice.block.findIndex((b, p) => b === block && lattice.window[p] === window);
}

// All heads of the layer for one of the pictures: the one that the pointer moves.
const tiles = [];
function renderTiles(slots) {
  const own = slots.filter((slot) => slot.number === shownImages()[Math.max(0, active)]);
  const slot = own[own.length - 1] || slots[slots.length - 1];
  const drawn = slot.values && slot.att.keys === "places";
  const count = slot.att ? slot.att.shape[0] + 1 : 0;
  while (tiles.length < count) {
    const head = tiles.length - 1, root = make("button", "tile", $("tiles"));
    root.type = "button";
    root.addEventListener("click", () => change({ head }));
    tiles.push({ root, canvas: make("canvas", "", root), name: make("span", "", root, head < 0 ? "mean" : `${head + 1}`), value: make("b", "", root) });
  }
  $("heads-title").textContent = slot.att ? `Heads of ${DATA.layers[state.layer].name}: ${queryWords(slot.att, slot.image, slot.query).toLowerCase()}` : "Heads";
  $("tiles").dataset.count = count;
  const rows = tiles.slice(0, count).map((_, i) => (drawn ? slot.weights.row(i - 1, slot.row) : null));
  const tops = rows.map((values) => (values ? topOf(slot.att, values) : 0)), most = Math.max(0, ...tops);
  const looks = pointer && drawn ? keyOf(slot.att, slot.row, placeAt(slot.att, slot.image.size, pointer)) : -1;
  const reading = pointer && (slot.pinned || slot.query.kind !== "place");
  tiles.forEach(({ root, canvas, value }, i) => {
    root.hidden = i >= count || (count === 2 && i === 0); // one head is its own mean
    if (root.hidden) return;
    root.setAttribute("aria-pressed", i - 1 === headOf(slot.att) || count === 2);
    root.setAttribute("aria-label", headWords(i - 1));
    const cut = slot.att.rows === "places" && slot.att.window[0] < slot.att.grid[0];
    root.style.setProperty("--ratio", cut ? 1 : slot.image.size[1] / slot.image.size[0]);
    if (!drawn) return clear(canvas);
    drawWindow(canvas, slot.att, rows[i], state.shared ? most : tops[i], state.root);
    const number = reading ? (looks < 0 ? 0 : rows[i][looks]) : tops[i];
    value.textContent = say(number, 3);
    value.dataset.value = number;
  });
  $("tiles").title = reading ? "The numbers are the weights of the patch under the pointer." : "The numbers are each head's greatest weight.";
}

function renderBar() {
  const layer = DATA.layers[state.layer], slider = $("layer");
  slider.max = DATA.layers.length - 1;
  slider.value = state.layer;
  $("layer-name").textContent = `${layer.name} (${state.layer + 1} of ${DATA.layers.length})`;
  slider.setAttribute("aria-valuetext", layer.name);
  $("opacity").value = state.opacity;
  $("shared").checked = state.shared;
  $("root").checked = state.root;
  const att = attentionOf(state.a);
  const rows = att ? att.rows : "places";
  if (rows === "places") {
    const tokens = att ? att.tokens : [];
    const chosen = tokens.includes(state.who) ? state.who : "patch";
    choice($("who"), [["patch", "patch"], ...tokens.map((name) => [name, name === "class" ? "class token" : name])], chosen, (who) => change({ who }));
  } else {
    choice($("who"), [[rows, rows === "pool" ? "the pooling" : "a symbol"]], rows, () => {});
  }
  $("who").hidden = $("who-label").hidden = $("who").childElementCount < 2 && rows !== "symbols";
  $("pin").textContent = state.pin ? (state.pin2 ? "Remove pins" : "Pin a second") : "Pin";
  $("pin").hidden = rows === "pool";
  $("pin").setAttribute("aria-pressed", Boolean(state.pin));
}

function pinLive() {
  const att = attentionOf(state.a);
  if (!att) return;
  if (state.pin && state.pin2) change({ pin: null, pin2: null });
  else pinQuery(liveQuery(att));
}

// The text of a transcriber; its symbols ask, and in its own attention they are asked too.
function renderText(slot) {
  const box = $("text"), image = slot.image;
  box.hidden = !image.written;
  if (box.hidden) return;
  if (box.dataset.of !== String(slot.number)) {
    box.dataset.of = slot.number;
    box.replaceChildren(make("span", "start", null, "start"), ...image.written.map((symbol, i) => {
      const chip = make("button", "", null, symbol === "" ? "end" : symbol);
      chip.type = "button";
      chip.classList.toggle("word", symbol === "");
      chip.addEventListener("pointermove", () => lookAtSymbol(i));
      chip.addEventListener("click", () => lookAtSymbol(i));
      chip.addEventListener("focus", () => lookAtSymbol(i));
      return chip;
    }));
  }
  const own = slot.att && slot.att.keys === "symbols" && slot.values;
  [...box.children].forEach((chip, j) => {
    const part = own ? slot.values[j] : null;
    chip.style.setProperty("--part", own ? part / (slot.top || 1) : 0);
    chip.title = own && part !== undefined ? say(part) : "";
    chip.dataset.value = own && part !== undefined ? part : "";
    if (j) chip.setAttribute("aria-pressed", slot.att && slot.att.rows === "symbols" && slot.query.i === j - 1);
  });
}

function lookAtSymbol(i) {
  const att = attentionOf(state.a);
  if (state.symbol === i && att && att.rows === "symbols") return;
  const last = DATA.images[state.a].attention.findLastIndex((one) => one && one.rows === "symbols" && one.keys === "places");
  change({ symbol: i, ...(att && att.rows === "symbols" ? {} : { layer: last < 0 ? state.layer : last }) });
}

function renderHint(slot) {
  const { att } = slot;
  const over = touch ? "Tap" : "Move over";
  let words = "";
  if (att && att.keys === "symbols") words = "Here symbols look at the symbols before them: the shade of each says how much.";
  else if (att && att.rows === "symbols") words = `${over} the symbols to see where each was read; the image for the numbers.`;
  else if (att && att.rows === "pool") words = `The pooling has one learned query: the picture is where it looks. ${over} it for the numbers.`;
  else if (att && state.who !== "patch" && !att.tokens.includes(state.who)) words = `This layer has no ${state.who} token; the patch under the pointer is shown.`;
  else if (att && !state.pin && state.who === "patch" && att.window[0] >= att.grid[0]) words = touch ? "Tap the image to see where a patch looks, then Pin to compare it with another." : "Move over the image to see where each patch looks. Click to pin one and compare it with others.";
  else if (state.pin && !state.pin2) words = `${over} any picture: the pinned one tells what it gives to the patch there, the other shows where that patch looks.`;
  else if (att && att.window[0] < att.grid[0]) words = "This layer looks inside windows: what is outside the window of a patch stays clear. The heads show the window alone.";
  $("hint").textContent = words;
}
