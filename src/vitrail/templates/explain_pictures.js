// A picture: the image in grey, colours over it, marks, a legend and numbers.
function make(tag, className, parent, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

const isLine = (image) => image.size[1] > 2.5 * image.size[0];

class Picture {
  constructor(parent) {
    this.root = make("figure", "picture", parent);
    this.title = make("figcaption", "title", this.root);
    this.words = make("b", "", this.title);
    this.file = make("span", "", this.title);
    this.frame = make("div", "frame", this.root);
    this.frame.tabIndex = 0;
    this.frame.setAttribute("role", "img");
    this.image = make("img", "", this.frame);
    this.image.alt = "";
    this.image.draggable = false;
    this.heat = make("canvas", "heat", this.frame);
    this.marks = { query: make("i", "mark query", this.frame), key: make("i", "mark key", this.frame) };
    this.legend = make("div", "legend", this.root);
    this.low = make("span", "", this.legend, "0");
    this.bar = make("i", "", this.legend);
    this.bar.style.backgroundImage = gradient;
    this.high = make("span", "", this.legend);
    this.numbers = make("dl", "numbers", this.root);
    this.rows = new Map();
    this.listen();
  }

  listen() {
    const at = (event) => {
      const box = this.frame.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      return { x: Math.max(0, Math.min(x, 0.99999)), y: Math.max(0, Math.min(y, 0.99999)) };
    };
    const over = (event) => this.onPoint && this.onPoint(at(event), event);
    this.frame.addEventListener("pointermove", over);
    this.frame.addEventListener("pointerdown", over);
    this.frame.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.onLeave && this.onLeave());
    this.frame.addEventListener("click", (event) => {
      if (event.pointerType !== "touch" && this.onClick) this.onClick(at(event));
    });
  }

  show(image, opacity) {
    if (this.shown !== image) {
      this.shown = image;
      this.image.src = image.src;
      this.root.style.setProperty("--ratio", image.size[1] / image.size[0]);
      this.root.classList.toggle("line", isLine(image));
      this.frame.classList.toggle("pixelated", image.pixelated);
    }
    this.heat.style.opacity = opacity;
  }

  // The colours cover `grid` cells of `cell` pixels; the last ones may hang over the edge.
  place(grid, cell) {
    const [height, width] = this.shown.size;
    this.heat.style.width = `${100 * grid[1] * cell[1] / width}%`;
    this.heat.style.height = `${100 * grid[0] * cell[0] / height}%`;
  }

  mark(name, pixels, kind) {
    const mark = this.marks[name];
    mark.hidden = !pixels;
    if (!pixels) return;
    const [height, width] = this.shown.size, [top, left, bottom, right] = pixels;
    mark.className = `mark ${name} ${kind || ""}`;
    mark.style.cssText = `left:${100 * left / width}%;top:${100 * top / height}%;width:${100 * (right - left) / width}%;height:${100 * (bottom - top) / height}%`;
  }

  ends(low, high, root = false) {
    this.legend.hidden = high === null;
    if (high === null) return;
    this.low.textContent = say(low);
    this.high.textContent = say(high) + (root ? " (√)" : "");
    this.legend.dataset.high = high;
  }

  // Numbers under the picture: name, label, value, and a word on where.
  tell(rows) {
    const names = new Set(rows.map((row) => row[0]));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.root.remove();
        this.rows.delete(name);
      }
    }
    for (const [name, label, value, where] of rows) {
      if (!this.rows.has(name)) {
        const root = make("div", "", this.numbers);
        this.rows.set(name, { root, label: make("dt", "", root), value: make("dd", "", root), where: make("dd", "where", root) });
      }
      const row = this.rows.get(name);
      row.label.textContent = label;
      row.value.textContent = typeof value === "number" ? say(value) : value;
      row.value.dataset.number = name;
      row.value.dataset.value = typeof value === "number" ? value : "";
      row.where.textContent = where || "";
      this.numbers.append(row.root);
    }
  }
}

// As many pictures as are wanted, made once.
class Pictures {
  constructor(parent, setUp) {
    this.parent = parent; this.setUp = setUp; this.all = [];
  }

  take(count) {
    while (this.all.length < count) {
      const picture = new Picture(this.parent);
      this.setUp(picture, this.all.length);
      this.all.push(picture);
    }
    this.all.forEach((picture, i) => { picture.root.hidden = i >= count; });
    this.parent.dataset.count = count;
    return this.all.slice(0, count);
  }
}

// A row of buttons of which one is chosen.
function choice(parent, options, chosen, choose) {
  const key = JSON.stringify(options);
  if (parent.dataset.options !== key) {
    parent.dataset.options = key;
    parent.replaceChildren(...options.map(([value, label]) => {
      const button = make("button", "", null, label);
      button.type = "button";
      button.dataset.value = value;
      button.addEventListener("click", () => parent.choose(value));
      return button;
    }));
  }
  parent.choose = choose;
  for (const button of parent.children) button.setAttribute("aria-pressed", button.dataset.value === String(chosen));
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const fileName = (id) => id.split("/").pop();
