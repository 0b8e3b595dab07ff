"use strict";
// Figures by shot and players in step. Every name is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(data.metrics.map((metric) => [metric.name, metric]));
const view = { metric: data.metrics[0]?.name, zoom: 1, difference: false, together: false };
const control = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const number = (value) => (value === null || value === undefined ? null : Number(value)); // "Infinity" is one

function written(value, metric = metrics.get(view.metric)) {
  if (value === null) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return value.toFixed(metric.digits).replace("-", "−");
}

const valueOf = (shot, method) => number(shot.values[method]?.[view.metric]);

// Values as the better the larger.
const merit = (value) => (value === null ? null : metrics.get(view.metric)?.better === "higher" ? value : -value);

function bestOf(shot, methods) {
  const merits = methods.map((method) => merit(valueOf(shot, method))).filter((value) => value !== null);
  return merits.length ? Math.max(...merits) : null;
}

// How far our method lies ahead of the best other one.
function lead(shot) {
  const ours = merit(valueOf(shot, data.ours));
  const others = bestOf(shot, data.methods.filter((method) => method !== data.ours));
  if (ours === null || others === null) return null;
  return ours === others ? 0 : ours - others;
}

/* Players */

// One shot: pictures that always show the same frame.
class Player {
  constructor(shot, group) {
    this.shot = shot;
    this.group = group;
    this.frame = 0;
    this.centre = [0.5, 0.5];
    this.strip = null; // while its pictures are decoded and in view
    this.wanted = false;
    this.playing = null;
    this.tiles = [];
    this.element = make("article", { className: "shot", id: `shot-${shot.id}`, tabIndex: -1 });
    this.element.setAttribute("aria-label", `${shot.name}, ${group.title}`);
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.build(shot.player);
  }

  // Tiles and slider. The pictures come later, with load().
  build({ frames, width, height, fps, references, players }) {
    this.frames = frames;
    this.fps = fps;
    this.size = [width, height];
    const facts = `${frames} frames, ${width} × ${height}, ${Number(fps.toFixed(2))} frames a second`;
    const tiles = make("div", { className: "tiles" });
    this.hasTruth = players.some((player) => player.name === "truth");
    for (const [i, player] of players.entries()) {
      const canvas = make("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${player.name} of ${this.shot.name}, at the frame of the slider`);
      canvas.dataset.player = player.name;
      canvas.style.aspectRatio = `${width} / ${height}`;
      this.listen(canvas);
      const tile = { canvas, name: player.name, shown: player.shown && new Set(player.shown), perFrame: player.perFrame };
      tile.value = make("span");
      tile.now = make("span", { className: "now" });
      const name = make("span", { className: "name", textContent: player.name });
      tiles.append(make("figure", { className: "tile" }, canvas, make("figcaption", {}, name, tile.value, tile.now)));
      this.tiles.push(tile);
      if (i === 0 && references) tiles.append(this.references(references));
    }
    this.columns = tiles;
    this.button = make("button", { type: "button", textContent: "Play" });
    this.button.addEventListener("click", () => this.toggle());
    this.slider = make("input", { type: "range", min: 0, max: frames - 1, step: 1, value: 0 });
    this.slider.setAttribute("aria-label", `Frame of ${this.shot.name}`);
    this.slider.addEventListener("input", () => {
      this.pause();
      seek(this, Number(this.slider.value));
    });
    this.output = make("output");
    this.element.append(
      make("div", { className: "shot-head" }, make("h4", { textContent: this.shot.name }), make("span", { textContent: facts })),
      tiles,
      make("div", { className: "transport" }, this.button, this.slider, this.output),
      ...players
        .filter((player) => player.note)
        .map((player) => make("p", { className: "note", textContent: `${player.name}: ${player.note}` })),
    );
    this.label();
    this.show(0);
  }

  references(count) {
    const box = make("div", { className: "references" });
    box.style.aspectRatio = this.size.join(" / ");
    this.referenceGrid = make("div");
    this.referenceGrid.style.gridTemplateColumns = `repeat(${Math.ceil(Math.sqrt(count))}, minmax(0, 1fr))`;
    box.append(this.referenceGrid);
    this.listen(box);
    const name = count === 1 ? "reference" : `${count} references`;
    const caption = make("figcaption", {}, make("span", { className: "name", textContent: name }));
    return make("figure", { className: "tile" }, box, caption);
  }

  async load() {
    if (this.wanted) return;
    this.wanted = true;
    const strip = JSON.parse(control(`strip-${this.shot.id}`).textContent);
    const decoded = async (url) => {
      const image = new Image();
      image.src = url;
      await image.decode();
      return image;
    };
    try {
      const pictures = await Promise.all(strip.players.map((urls) => Promise.all(urls.map(decoded))));
      if (!this.wanted) return; // it has left the view meanwhile
      this.strip = pictures;
    } catch {
      this.output.textContent = "the pictures cannot be decoded";
      return;
    }
    this.referenceGrid?.replaceChildren(
      ...strip.references.map((url, r) => make("img", { src: url, alt: `reference ${r} of ${this.shot.name}`, draggable: false })),
    );
    for (const tile of this.tiles) [tile.canvas.width, tile.canvas.height] = this.size;
    this.show(this.frame);
  }

  // Decoded pictures are large: a shot far from view gives them back.
  unload() {
    this.wanted = false;
    this.strip = null;
    this.pause();
    this.referenceGrid?.replaceChildren();
    for (const tile of this.tiles) tile.canvas.width = tile.canvas.height = 0;
  }

  show(frame) {
    this.frame = Math.min(Math.max(frame, 0), this.frames - 1);
    this.slider.value = this.frame;
    this.slider.setAttribute("aria-valuetext", `frame ${this.frame} of 0 to ${this.frames - 1}`);
    this.output.textContent = `frame ${this.frame} / ${this.frames - 1}`;
    for (const tile of this.tiles) {
      const held = tile.shown && !tile.shown.has(this.frame);
      tile.canvas.classList.toggle("held", Boolean(held));
      const here = tile.perFrame[view.metric];
      tile.now.textContent = held
        ? "has no such frame"
        : here === undefined
          ? ""
          : number(here[this.frame]) === null
            ? "not scored"
            : `this frame ${written(number(here[this.frame]))}`;
    }
    this.draw();
  }

  // All pictures in one go, from one frame number: they cannot differ.
  draw() {
    if (!this.strip) return;
    const [width, height] = this.size;
    const [w, h] = [Math.max(1, Math.round(width / view.zoom)), Math.max(1, Math.round(height / view.zoom))];
    const x = Math.round(Math.min(Math.max(this.centre[0] * width - w / 2, 0), width - w));
    const y = Math.round(Math.min(Math.max(this.centre[1] * height - h / 2, 0), height - h));
    if (this.referenceGrid) {
      const moved = `translate(${(-100 * x) / width}%, ${(-100 * y) / height}%)`;
      this.referenceGrid.style.transform = view.zoom === 1 ? "" : `scale(${view.zoom}) ${moved}`;
    }
    const truth = this.tiles.findIndex((tile) => tile.name === "truth");
    const at = this.shot.player.framesPerPicture;
    const left = (this.frame % at) * width;
    const paint = (context, pictures) =>
      context.drawImage(pictures[Math.floor(this.frame / at)], left + x, y, w, h, 0, 0, width, height);
    for (const [i, tile] of this.tiles.entries()) {
      const context = tile.canvas.getContext("2d");
      context.imageSmoothingEnabled = false; // zoomed pixels stay pixels
      context.globalCompositeOperation = "copy";
      paint(context, this.strip[i]);
      if (view.difference && truth >= 0 && i !== truth && tile.name !== "sketch") {
        context.globalCompositeOperation = "difference";
        paint(context, this.strip[truth]);
        context.globalCompositeOperation = "lighter"; // doubled, so that small errors are seen
        context.drawImage(tile.canvas, 0, 0);
      }
    }
  }

  // Figures of the shot under each picture.
  label() {
    const best = bestOf(this.shot, data.methods);
    for (const tile of this.tiles) {
      const value = valueOf(this.shot, tile.name);
      const metric = metrics.get(view.metric);
      tile.value.textContent = value === null ? "" : `${metric.label} ${written(value)}`;
      tile.value.className = value !== null && merit(value) === best ? "best" : "";
    }
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (view.together) for (const player of players) player.pause();
    const from = this.frame === this.frames - 1 ? 0 : this.frame;
    const started = performance.now();
    const step = (now) => {
      const frame = (from + Math.floor((Math.max(0, now - started) / 1000) * this.fps)) % this.frames;
      if (frame !== this.frame) seek(this, frame);
      this.playing = requestAnimationFrame(step);
    };
    this.button.textContent = "Pause";
    this.playing = requestAnimationFrame(step);
  }

  pause() {
    if (!this.playing) return;
    cancelAnimationFrame(this.playing);
    this.playing = null;
    this.button.textContent = "Play";
  }

  listen(canvas) {
    let drag = null; // where it began, and at which frame
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.element.focus({ preventScroll: true });
      drag = { x: event.clientX, frame: this.frame };
      canvas.setPointerCapture(event.pointerId);
      this.pause();
      this.look(event, canvas);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        const step = canvas.clientWidth / this.frames;
        const frame = Math.min(Math.max(drag.frame + Math.round((event.clientX - drag.x) / step), 0), this.frames - 1);
        if (frame !== this.frame) seek(this, frame);
      } else this.look(event, canvas);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));
  }

  // The zoomed view follows the pointer, in all pictures of the shot.
  look(event, canvas) {
    if (view.zoom === 1) return;
    const box = canvas.getBoundingClientRect();
    // A margin of a tenth, so that the corners are reached before the pointer leaves.
    const along = (at, from, length) => Math.min(Math.max(((at - from) / length - 0.1) / 0.8, 0), 1);
    const spread = (share) => (share * (view.zoom - 1) + 0.5) / view.zoom;
    this.centre = [spread(along(event.clientX, box.left, box.width)), spread(along(event.clientY, box.top, box.height))];
    this.draw();
  }

  pan(dx, dy) {
    const margin = 0.5 / view.zoom;
    const clamped = (value) => Math.min(Math.max(value, margin), 1 - margin);
    this.centre = [clamped(this.centre[0] + dx * margin), clamped(this.centre[1] + dy * margin)];
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const scrub = { ArrowLeft: this.frame - 1, ArrowRight: this.frame + 1, Home: 0, End: this.frames - 1 };
    const act = {
      "+": () => setZoom(view.zoom * 2),
      "=": () => setZoom(view.zoom * 2),
      "-": () => setZoom(view.zoom / 2),
      d: () => control("difference").click(),
      t: () => control("together").click(),
      j: () => this.neighbour(1),
      k: () => this.neighbour(-1),
    };
    if (event.shiftKey && event.key in arrows) this.pan(...arrows[event.key]);
    else if (event.key in scrub) {
      if (event.target === this.slider) return; // it moves itself
      this.pause();
      seek(this, scrub[event.key]);
    } else if (event.key === " ") {
      if (event.target === this.button) return;
      this.toggle();
    } else if (event.key.toLowerCase() in act) act[event.key.toLowerCase()]();
    else return;
    event.preventDefault();
  }

  neighbour(step) {
    const next = step > 0 ? this.element.nextElementSibling : this.element.previousElementSibling;
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "start" });
  }
}

const players = [];

function seek(player, frame) {
  for (const other of view.together ? players : [player]) {
    if (other === player || other.wanted) other.show(frame);
    else other.frame = frame; // shown when it comes into view
  }
}

function setZoom(zoom) {
  view.zoom = Math.min(Math.max(zoom, 1), 8);
  control("zoom").value = view.zoom;
  for (const player of players) {
    player.centre = view.zoom === 1 ? [0.5, 0.5] : player.centre;
    player.draw();
  }
}

/* Figures by shot */

class Table {
  constructor(group, box, list) {
    this.group = group;
    this.box = box;
    this.list = list;
    this.players = new Map();
    for (const shot of group.shots.filter((each) => each.player)) {
      const player = new Player(shot, group);
      players.push(player);
      this.players.set(shot, player);
    }
    this.worstFirst();
  }

  worstFirst() {
    this.sorting = { column: data.ours, descending: metrics.get(view.metric)?.better === "lower" };
    this.update();
  }

  columns() {
    const methods = data.methods.filter((method) => this.group.shots.some((shot) => valueOf(shot, method) !== null));
    const columns = methods.map((method) => ({ key: method, title: method, of: (shot) => valueOf(shot, method) }));
    if (methods.includes(data.ours) && methods.length > 1)
      columns.push({ key: " lead", title: `${data.ours} ahead of the best other`, of: lead });
    return columns;
  }

  update() {
    const columns = this.columns();
    const { column, descending } = this.sorting;
    const chosen = columns.find((each) => each.key === column);
    const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
    const sign = descending ? -1 : 1;
    const order = [...this.group.shots];
    if (column === " name") order.sort((a, b) => sign * byName(a, b));
    else if (chosen)
      order.sort((a, b) => {
        const [x, y] = [chosen.of(a), chosen.of(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return x === y ? byName(a, b) : sign * (x < y ? -1 : 1);
      });
    this.list.replaceChildren(...order.filter((shot) => this.players.has(shot)).map((shot) => this.players.get(shot).element));
    if (!this.list.firstChild) this.list.replaceChildren(make("p", { className: "note", textContent: "No shot of this part has players on this page." }));
    if (!columns.length) {
      const words = metrics.size ? `${metrics.get(view.metric).label} is not defined for these shots.` : "Nothing was measured.";
      this.box.replaceChildren(make("p", { className: "note", textContent: words }));
      return;
    }
    const head = make("tr", {}, ...[{ key: " name", title: "shot" }, ...columns].map((each) => this.header(each)));
    const body = order.map((shot) => {
      const best = bestOf(shot, data.methods);
      const name = this.players.has(shot) ? make("a", { href: `#shot-${shot.id}`, textContent: shot.name }) : shot.name;
      const cells = columns.map(({ key, of }) => {
        const value = of(shot);
        const isBest = key !== " lead" && value !== null && merit(value) === best;
        const text = key === " lead" && value > 0 ? `+${written(value)}` : written(value);
        return make("td", {}, isBest ? make("b", { textContent: text }) : text);
      });
      return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
    });
    const table = make("table", { className: "figures" }, make("thead", {}, head), make("tbody", {}, ...body));
    const metric = metrics.get(view.metric);
    const caption = `${metric.label}${metric.unit ? ` (${metric.unit})` : ""}, ${metric.better} is better. Click a heading to sort; the players follow.`;
    const scroll = make("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", `Figures by shot, ${this.group.title}`);
    this.box.replaceChildren(make("p", { className: "note", textContent: caption }), scroll);
  }

  header({ key, title }) {
    const button = make("button", { type: "button", textContent: title });
    const { column, descending } = this.sorting;
    button.addEventListener("click", () => {
      // Worst first, then the other way round.
      const worst = key !== " name" && key !== " lead" && metrics.get(view.metric).better === "lower";
      this.sorting = { column: key, descending: column === key ? !descending : worst };
      this.update();
      this.box.querySelector(`th[aria-sort] button`)?.focus();
    });
    const cell = make("th", { scope: "col" }, button);
    if (column === key) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    return cell;
  }
}

/* The page */

const tables = data.groups.map((group) => {
  const [box, list] = ["by-shot", "shots"].map((name) => document.querySelector(`.${name}[data-group="${group.id}"]`));
  return new Table(group, box, list);
});

const inView = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const player = players.find((each) => each.element === target);
      if (isIntersecting) player.load();
      else player.unload();
    }
  },
  { rootMargin: "100% 0px" },
);
for (const player of players) inView.observe(player.element);

control("metric").append(...data.metrics.map(({ name, label }) => make("option", { value: name, textContent: label })));
control("metric").closest("label").hidden = !data.metrics.length;
control("metric").addEventListener("change", ({ target }) => {
  view.metric = target.value;
  for (const figure of document.querySelectorAll(".plot")) figure.hidden = figure.dataset.metric !== view.metric;
  for (const table of tables) table.worstFirst();
  for (const player of players) {
    player.label();
    player.show(player.frame);
  }
});
for (const heading of document.querySelectorAll("h1, main h2"))
  control("jump").append(make("option", { value: heading.parentElement.id, textContent: heading.textContent }));
control("jump").addEventListener("change", ({ target }) => {
  control(target.value).scrollIntoView();
  target.value = ""; // to be chosen again
});
control("zoom").addEventListener("change", ({ target }) => setZoom(Number(target.value)));
// Rows of one length: seven pictures where five would fit stand as four and three.
function arrange() {
  const gap = 12;
  for (const { columns } of players) {
    const fit = Math.max(1, Math.floor((columns.clientWidth + gap) / (Number(control("size").value) + gap)));
    const rows = Math.ceil(columns.childElementCount / fit);
    columns.style.setProperty("--columns", Math.ceil(columns.childElementCount / rows));
  }
}
if (innerWidth < 640) control("size").value = 150;
control("size").addEventListener("input", arrange);
new ResizeObserver(arrange).observe(document.querySelector("main"));
arrange();
control("difference").addEventListener("change", ({ target }) => {
  view.difference = target.checked;
  for (const player of players) player.draw();
});
control("difference").closest("label").hidden = !players.some((player) => player.hasTruth);
control("together").addEventListener("change", ({ target }) => {
  view.together = target.checked;
});
control("toolbar").addEventListener("submit", (event) => event.preventDefault());
control("toolbar").hidden = false;
