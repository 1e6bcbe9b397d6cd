// The tabs of maps: class maps with their curves, patch features as colours, norms of tokens.
const arrays = new WeakMap();
function valuesOf(cells, read) {
  if (!arrays.has(cells)) arrays.set(cells, read(cells.data));
  return arrays.get(cells);
}

const mapRows = [];
function mapRow(i) {
  while (mapRows.length <= i) {
    const root = make("section", "map-row", $("map-views"));
    const picture = new Picture(root), side = make("div", "side", root);
    const row = { root, picture, side, targets: make("span", "choice", side), plots: make("div", "plots", side), point: null };
    picture.onPoint = (point) => { row.point = point; change(); };
    picture.onLeave = () => { row.point = null; change(); };
    mapRows.push(row);
  }
  return mapRows[i];
}

function renderMaps() {
  const images = shownImages(), key = state.tab;
  $("map-opacity").value = state.opacity;
  const norms = key === "norms" ? DATA.images[state.a].norms : [];
  $("block-control").hidden = !norms.length;
  if (norms.length) {
    const block = blockOf(norms);
    $("block").max = norms.length - 1;
    $("block").value = block;
    $("block-name").textContent = norms[block].name;
  }
  $("map-about").textContent = aboutTab(key);
  images.forEach((number, i) => renderMapRow(mapRow(i), DATA.images[number], key));
  mapRows.forEach((row, i) => { row.root.hidden = i >= images.length; });
  $("map-views").dataset.count = images.length;
}

const blockOf = (norms) => (state.block < 0 || state.block >= norms.length ? Math.max(0, norms.length - 2) : state.block);

function aboutTab(key) {
  if (key === "features") return "The last feature map in three colours: its first three principal components as red, green and blue. Like colours mean like features, within one image.";
  if (key === "norms") return "How long the vector of each token is. A few patches of even background that are far longer than the rest are artefacts: the model keeps there what concerns the whole image.";
  const one = DATA.images[state.a].maps.find((map) => `map-${map.key}` === key);
  if (!one) return "";
  return one.paper ? `${one.about} ${one.paper[0].toUpperCase()}${one.paper.slice(1)}.` : one.about;
}

function renderMapRow(row, image, key) {
  const { picture } = row;
  picture.show(image, state.opacity);
  row.root.classList.toggle("line", isLine(image));
  picture.mark("query", null);
  const point = row.point || (mapRows.find((other) => other.point) || {}).point || null;
  if (key === "features") return renderColours(row, image, point);
  const found = key === "norms" ? image.norms : image.maps.filter((map) => `map-${map.key}` === key);
  const map = key === "norms" ? found[Math.min(blockOf(found), found.length - 1)] : found[Math.min(state.target, found.length - 1)];
  row.targets.hidden = key === "norms" || found.length < 2;
  if (!map) return;
  choice(row.targets, found.map((one, i) => [i, one.target || one.name || ""]), Math.min(state.target, found.length - 1), (target) => change({ target: Number(target) }));
  const values = valuesOf(map.cells, floatsOf), grid = map.cells.grid;
  const low = key === "norms" ? values.reduce((a, b) => Math.min(a, b), Infinity) : 0;
  const high = values.reduce((a, b) => Math.max(a, b), low);
  row.laid = { grid, cell: map.cell };
  picture.place(grid, map.cell);
  drawMap(picture.heat, grid, values, low, high);
  picture.ends(low, high);
  picture.words.textContent = key === "norms" ? map.name : map.target ? `For ${map.target}` : map.name;
  picture.file.textContent = fileName(image.id);
  picture.tell(cellNumbers(picture, map, image, grid, point, (p) => values[p], high, key === "norms"));
  picture.frame.setAttribute("aria-label", `${map.name} ${map.target || ""}`);
  renderSide(row, image, map, key);
}

function cellNumbers(picture, map, image, grid, point, value, high, norms) {
  const rows = [];
  if (point) {
    const y = Math.min(grid[0] - 1, Math.floor(point.y * image.size[0] / map.cell[0]));
    const x = Math.min(grid[1] - 1, Math.floor(point.x * image.size[1] / map.cell[1]));
    const pixels = cellPixels(map, image.size, y, x), here = value(y * grid[1] + x);
    picture.mark("key", pixels);
    rows.push(["cell", `row ${y + 1}, column ${x + 1}`, here, `pixel ${pixelWords(pixels)}`]);
    if (!norms && typeof here === "number") rows.push(["part", "of the greatest", high ? percent(here / high) : "–"]);
  } else {
    picture.mark("key", null);
    rows.push(["cell", touch ? "Tap the image" : "Move over the image", "–"]);
  }
  return rows;
}

function renderColours(row, image, point) {
  const { picture } = row, map = image.features;
  row.targets.hidden = true;
  row.plots.replaceChildren();
  row.side.dataset.key = "";
  if (!map) return;
  const bytes = valuesOf(map.cells, bytesOf), grid = map.cells.grid;
  row.laid = { grid, cell: map.cell };
  picture.place(grid, map.cell);
  drawColours(picture.heat, grid, bytes);
  picture.ends(0, null);
  picture.words.textContent = "Like colours, like features";
  picture.file.textContent = fileName(image.id);
  picture.tell(cellNumbers(picture, map, image, grid, point, (p) => `${bytes[3 * p]}, ${bytes[3 * p + 1]}, ${bytes[3 * p + 2]}`, 0, true));
}

// Moves the point by a cell of the map; from nothing to the middle.
function moveCell(down, right) {
  const row = mapRows[0], image = DATA.images[state.a];
  if (!row || !row.laid || state.tab === "distance") return;
  const old = row.point || { x: 0.5, y: 0.5 }, by = row.point ? [down, right] : [0, 0];
  const [y, x] = [old.y, old.x].map((part, i) => {
    const size = image.size[i], side = row.laid.cell[i], last = row.laid.grid[i] - 1;
    const cell = Math.max(0, Math.min(last, Math.floor(part * size / side) + by[i]));
    return Math.min((cell + 0.5) * side, size - 0.5) / size;
  });
  row.point = { y, x };
  change();
  speak();
}

function sayCell() {
  const row = mapRows[0], cell = row && row.point && row.picture.rows.get("cell");
  if (cell) $("said").textContent = `${row.picture.words.textContent}, ${cell.label.textContent}: ${cell.value.textContent}`;
}

// What stands beside a map: curves, all methods in a table; for norms the other tokens.
function renderSide(row, image, map, key) {
  const shown = `${image.id}|${key}|${map.target || map.name}|${DATA.images.indexOf(image)}`;
  if (row.side.dataset.key === shown) return;
  row.side.dataset.key = shown;
  row.plots.replaceChildren();
  if (key === "norms") {
    const parts = [...map.tokens.map(([name, length]) => [`${name} token`, say(length)]), ["patches over 3 times the median", percent(map.outliers)]];
    table(row.plots, ["Token", "Length"], parts);
    return;
  }
  if (map.said) make("p", "small", row.plots, map.said);
  answer(row.plots, image);
  for (const curve of map.curves) row.plots.append(curvePlot(curve, map.target || image.label));
  const all = image.maps.filter((one) => one.curves.length && (!one.target || !map.target || one.target === map.target));
  if (!all.length) return;
  const lines = all.map((one) => [one.name, say(one.curves[0].area), say(one.curves[1].area)]);
  const [gone, back] = all[0].curves;
  table(row.plots, ["Area on this image", "deletion", "insertion"], [...lines, ["Random", say(gone.randomArea), say(back.randomArea)]], all.indexOf(map));
  if (!map.said) make("p", "small muted across", row.plots, "One image proves little. “vitrail explain MODEL DATA --score” measures all methods over many, with intervals.");
}

function answer(parent, image) {
  const box = make("div", "answer", parent);
  make("h3", "", box, image.truth && image.truth !== image.label ? `Says ${image.label || "nothing"}; it is ${image.truth}` : `Says ${image.label || "nothing"}`);
  for (const [name, score] of image.best) {
    const line = make("div", "score", box);
    line.style.setProperty("--v", score);
    make("span", "", line, name);
    make("b", "", line, percent(score));
  }
}

function table(parent, heads, lines, marked = -1) {
  const element = make("table", "", make("div", "scroll", parent));
  const top = make("tr", "", make("thead", "", element));
  heads.forEach((head, i) => { make("th", i ? "number" : "", top, head).scope = "col"; });
  const body = make("tbody", "", element);
  lines.forEach((line, j) => {
    const row = make("tr", j === marked ? "marked" : "", body);
    line.forEach((cell, i) => make(i ? "td" : "th", i ? "number" : "", row, cell));
  });
}
