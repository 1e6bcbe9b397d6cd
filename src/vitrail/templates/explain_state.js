// What is shown. The address holds it, so that a copied address shows the same.
const tabs = [];
const state = {
  tab: "", a: 0, b: -1, layer: 0, head: -1, who: "patch", at: { x: 0.5, y: 0.5 },
  pin: null, pin2: null, symbol: 0, opacity: 0.8, shared: false, root: false, target: 0, block: -1,
};
const narrow = matchMedia("(max-width: 40rem)");
const touch = matchMedia("(hover: none)").matches; // there is no moving over: people tap
let pointer = null; // where the pointer is on an image, x and y from 0 to 1; null where it is not

const round4 = (v) => Math.round(1e4 * v) / 1e4;

function queryText(query) {
  if (query.kind === "place") return `${round4(query.x)},${round4(query.y)}`;
  return query.kind === "token" ? `t:${query.name}` : `s:${query.i}`;
}

function queryFrom(text) {
  if (text.startsWith("t:")) return { kind: "token", name: text.slice(2) };
  if (text.startsWith("s:")) return { kind: "symbol", i: whole(text.slice(2), 0, 1e6, 0) };
  const [x, y] = text.split(",").map(Number);
  return x >= 0 && x < 1 && y >= 0 && y < 1 ? { kind: "place", x, y } : null;
}

function whole(text, low, high, otherwise) {
  const value = Number(text);
  return text !== null && text !== "" && Number.isInteger(value) && value >= low && value <= high ? value : otherwise;
}

function toHash() {
  const words = new URLSearchParams();
  words.set("tab", state.tab);
  if (state.a) words.set("a", state.a);
  if (state.b >= 0) words.set("b", state.b);
  words.set("layer", state.layer);
  if (state.head >= 0) words.set("head", state.head + 1);
  if (state.who !== "patch") words.set("who", state.who);
  words.set("at", `${round4(state.at.x)},${round4(state.at.y)}`);
  if (state.pin) words.set("pin", queryText(state.pin));
  if (state.pin2) words.set("pin2", queryText(state.pin2));
  if (state.symbol) words.set("symbol", state.symbol);
  if (state.target) words.set("target", state.target);
  if (state.shared) words.set("scale", "one");
  if (state.root) words.set("faint", "lift");
  if (state.block >= 0) words.set("block", state.block);
  return `#${words}`;
}

function fromHash() {
  const words = new URLSearchParams(location.hash.slice(1)), last = DATA.images.length - 1;
  if (tabs.some((tab) => tab.key === words.get("tab"))) state.tab = words.get("tab");
  state.a = whole(words.get("a"), 0, last, state.a);
  state.b = whole(words.get("b"), 0, last, -1);
  state.layer = whole(words.get("layer"), 0, Math.max(0, DATA.layers.length - 1), state.layer);
  state.head = whole(words.get("head"), 1, 1e4, 0) - 1;
  state.who = words.get("who") || "patch";
  const at = queryFrom(words.get("at") || "");
  if (at) state.at = { x: at.x, y: at.y };
  state.pin = words.get("pin") ? queryFrom(words.get("pin")) : null;
  state.pin2 = words.get("pin2") ? queryFrom(words.get("pin2")) : null;
  state.symbol = whole(words.get("symbol"), 0, 1e6, 0);
  state.target = whole(words.get("target"), 0, 100, 0);
  state.shared = words.get("scale") === "one";
  state.root = words.get("faint") === "lift";
  state.block = whole(words.get("block"), 0, 1e4, -1);
}

let hashTimer = 0;
function keepAddress() {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(() => {
    const hash = toHash();
    if (hash !== location.hash) history.replaceState(null, "", hash);
  }, 300);
}

// Drawing happens at most once a frame, whatever moved.
let asked = 0;
function change(part) {
  if (part) Object.assign(state, part);
  if (asked) return;
  asked = requestAnimationFrame(() => {
    asked = 0;
    render();
    keepAddress();
  });
}

const shownImages = () => [state.a, ...(state.b >= 0 && state.b !== state.a ? [state.b] : [])];
