// The frame of the page: images, tabs, the keyboard, and the first picture.
function renderStrip() {
  const strip = $("strip");
  if (!strip.childElementCount) {
    DATA.images.forEach((image, i) => {
      const card = make("div", "card", strip), show = make("button", "show", card), thumb = make("img", "", show);
      show.type = "button";
      thumb.src = image.src;
      thumb.alt = "";
      const words = make("span", "", show);
      make("b", "", words, cut(image.label || "(nothing)", 40));
      make("span", "score", words, percent(image.score));
      if (image.truth && image.truth !== image.label) make("span", "miss", words, `it is ${cut(image.truth, 30)}`);
      make("span", "file", words, cut(fileName(image.id), 40));
      show.title = image.id;
      show.addEventListener("click", () => change({ a: i, b: state.b === i ? -1 : state.b, target: 0 }));
      if (DATA.images.length > 1) {
        const beside = make("button", "beside", card);
        beside.type = "button";
        beside.addEventListener("click", () => change({ b: state.b === i || state.a === i ? -1 : i }));
      }
    });
  }
  [...strip.children].forEach((card, i) => {
    if (i === state.a && !card.classList.contains("first")) {
      const end = card.offsetLeft + card.offsetWidth - strip.offsetLeft;
      if (end > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = end - strip.clientWidth;
      if (card.offsetLeft - strip.offsetLeft < strip.scrollLeft) strip.scrollLeft = card.offsetLeft - strip.offsetLeft;
    }
    card.classList.toggle("first", i === state.a);
    card.classList.toggle("second", i === state.b);
    card.firstChild.setAttribute("aria-pressed", i === state.a);
    const beside = card.querySelector(".beside");
    if (!beside) return;
    beside.hidden = i === state.a;
    beside.textContent = i === state.b ? "beside ✓" : "compare";
    beside.setAttribute("aria-pressed", i === state.b);
    beside.setAttribute("aria-label", `Show ${fileName(DATA.images[i].id)} beside`);
  });
}

function renderTabs() {
  const bar = $("tabs");
  if (!bar.childElementCount) {
    for (const tab of tabs) {
      const button = make("button", "", bar, tab.name);
      button.type = "button";
      button.id = `tab-${tab.key}`;
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", "panel");
      button.addEventListener("click", () => change({ tab: tab.key }));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.stopPropagation();
        const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
        change({ tab: next.key });
        $(`tab-${next.key}`).focus();
      });
      make("option", "", $("tab-list"), tab.name).value = tab.key;
    }
    bar.addEventListener("scroll", fadeTabs, { passive: true });
    addEventListener("resize", fadeTabs);
  }
  $("tab-list").value = state.tab;
  let shown = null;
  [...bar.children].forEach((button, i) => {
    const on = tabs[i].key === state.tab;
    const was = button.getAttribute("aria-selected") === "true";
    button.setAttribute("aria-selected", on);
    button.tabIndex = on ? 0 : -1;
    if (on && !was) shown = button;
  });
  if (shown) showTab(bar, shown); // when all have their widths
  $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
}

// Scrolls the row alone, never the page.
function showTab(bar, button) {
  const left = button.offsetLeft - bar.offsetLeft, room = 48;
  bar.scrollLeft = Math.max(Math.min(bar.scrollLeft, left - room), left + button.offsetWidth + room - bar.clientWidth);
  fadeTabs();
}

// A faded end says that there is more.
function fadeTabs() {
  const bar = $("tabs");
  bar.classList.toggle("before", bar.scrollLeft > 2);
  bar.classList.toggle("after", bar.scrollLeft + bar.clientWidth < bar.scrollWidth - 2);
}

function stepTab(by) {
  const at = tabs.findIndex((tab) => tab.key === state.tab);
  change({ tab: tabs[(at + by + tabs.length) % tabs.length].key });
}

function render() {
  renderStrip();
  renderTabs();
  const attention = state.tab === "attention", distance = state.tab === "distance";
  $("attention").hidden = !attention;
  $("distance").hidden = !distance;
  $("maps").hidden = attention || distance;
  if (attention) renderAttention();
  else if (distance) {
    if (!$("distance").childElementCount) distancePlot($("distance"), narrow.matches);
  } else renderMaps();
}

function listTabs() {
  const image = DATA.images[0];
  if (DATA.images.some((one) => one.attention.some(Boolean))) tabs.push({ key: "attention", name: "Attention" });
  const seen = new Set();
  for (const map of image.maps) {
    if (!seen.has(map.key)) tabs.push({ key: `map-${map.key}`, name: map.name });
    seen.add(map.key);
  }
  if (image.features) tabs.push({ key: "features", name: "Features" });
  if (image.norms.length) tabs.push({ key: "norms", name: "Token norms" });
  if (DATA.distances) tabs.push({ key: "distance", name: "Distance" });
}

// Moves the patch by one place of the layer that is shown, or the symbol of a text.
function move(down, right) {
  if (state.tab !== "attention") return moveCell(down, right);
  const att = attentionOf(state.a), [height, width] = DATA.images[state.a].size;
  if (!att) return;
  if (att.rows === "symbols") {
    const last = att.shape[1] - 1;
    change({ symbol: Math.max(0, Math.min(last, Math.min(state.symbol, last) + right + down)) });
  } else {
    const side = att.stride * att.block, n = att.grid[1], p = placeAt(att, [height, width], state.at);
    const y = Math.max(0, Math.min(height - 1, Math.floor(p / n) * att.stride + att.stride / 2 + down * side));
    const x = Math.max(0, Math.min(width - 1, p % n * att.stride + att.stride / 2 + right * side));
    const at = { x: x / width, y: y / height };
    pointer = at;
    change({ at });
  }
  speak();
}

function step(name, by, low, high) {
  const value = state[name] + by;
  change({ [name]: value > high ? low : value < low ? high : value });
  speak();
}

// What a screen reader is told after a key.
let speaking = 0;
function speak() {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    if (state.tab !== "attention") return sayCell();
    const att = attentionOf(state.a);
    if (!att) return;
    const key = views.all[0] && views.all[0].rows.get("key"), image = DATA.images[state.a];
    $("said").textContent = `${DATA.layers[state.layer].name}, ${headWords(state.head)}, ${queryWords(att, image, liveQuery(att))}${key ? `: ${key.label.textContent} ${key.value.textContent}` : ""}`;
  }, 400);
}

function stepToken(toClass) {
  const att = attentionOf(state.a);
  if (!att || !att.tokens.length) return;
  if (toClass) return change({ who: state.who === att.tokens[0] ? "patch" : att.tokens[0] });
  const all = ["patch", ...att.tokens];
  change({ who: all[(all.indexOf(state.who) + 1) % all.length] });
}

const lastImage = () => DATA.images.length - 1;
const lastHead = () => (DATA.layers.length ? DATA.layers[state.layer].heads - 1 : -1);

function stepBeside() {
  let next = state.b < 0 ? (state.a + 1) % DATA.images.length : state.b + 1;
  if (next === state.a) next++;
  change({ b: next > lastImage() || next === state.a ? -1 : next });
}

const KEYS = {
  ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0), ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1),
  "[": () => step("layer", -1, 0, DATA.layers.length - 1), "]": () => step("layer", 1, 0, DATA.layers.length - 1),
  h: () => step("head", 1, -1, lastHead()), H: () => step("head", -1, -1, lastHead()), m: () => change({ head: -1 }),
  p: pinLive, Enter: pinLive, Escape: () => change({ pin: null, pin2: null }),
  c: () => stepToken(true), t: () => stepToken(false),
  i: () => step("a", 1, 0, lastImage()), I: () => step("a", -1, 0, lastImage()), b: stepBeside,
  s: () => change({ shared: !state.shared }), v: () => stepTab(1), V: () => stepTab(-1), "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const own = event.target.closest("button, a, summary, input, [role=button]");
  if (event.target.matches("select")) return;
  const slides = event.target.matches("input") && /^(Arrow|Home|End|Page)/.test(event.key);
  if (slides || (own && (event.key === "Enter" || event.key === " "))) return;
  const tab = Number(event.key);
  if (event.key.length === 1 && tab >= 1 && tab <= tabs.length) change({ tab: tabs[tab - 1].key });
  else if (KEYS[event.key]) {
    if (event.key.startsWith("Arrow")) {
      if (state.tab === "distance") return;
      event.preventDefault();
    }
    KEYS[event.key]();
  }
});

function begin() {
  listTabs();
  if (!tabs.length) return;
  state.tab = tabs[0].key;
  const reads = DATA.images[0].attention.findLastIndex((one) => one && one.rows === "symbols" && one.keys === "places");
  const known = DATA.images[0].attention.findLastIndex(Boolean);
  state.layer = reads >= 0 ? reads : Math.max(0, known);
  fromHash();
  $("layer").addEventListener("input", (event) => change({ layer: Number(event.target.value) }));
  $("pin").addEventListener("click", pinLive);
  $("layer-down").addEventListener("click", KEYS["["]);
  $("layer-up").addEventListener("click", KEYS["]"]);
  for (const id of ["opacity", "map-opacity"]) $(id).addEventListener("input", (event) => change({ opacity: Number(event.target.value) }));
  $("shared").addEventListener("change", (event) => change({ shared: event.target.checked }));
  $("root").addEventListener("change", (event) => change({ root: event.target.checked }));
  $("block").addEventListener("input", (event) => change({ block: Number(event.target.value) }));
  $("tab-list").addEventListener("change", (event) => change({ tab: event.target.value }));
  $("tab-before").addEventListener("click", () => stepTab(-1));
  $("tab-after").addEventListener("click", () => stepTab(1));
  $("help-open").addEventListener("click", () => $("help").showModal());
  addEventListener("hashchange", () => { fromHash(); change(); });
  narrow.addEventListener("change", () => { $("distance").replaceChildren(); change(); });
  render();
}
begin();
