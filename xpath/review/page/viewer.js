// Pan and zoom of a slide in tiles, with layers over it. Coordinates are level-0 pixels.
"use strict";

class Tiles {  // pictures by address: few are fetched at a time, and those that left the view no longer
  constructor(onChange) {
    this.onChange = onChange;
    this.kept = new Map();     // address to picture, null where there is none; the longest unused first
    this.fetching = new Map(); // address to what ends it
    this.wanted = [];
  }

  get(address) {
    const known = this.kept.get(address);
    if (!known) return null;
    this.kept.delete(address);
    this.kept.set(address, known);
    return known;
  }

  want(addresses) {  // the most urgent first
    this.wanted = addresses.filter((address) => !this.kept.has(address));
    const still = new Set(this.wanted);
    for (const [address, end] of this.fetching) if (!still.has(address)) { end.abort(); this.fetching.delete(address); }
    this.fetchNext();
  }

  fetchNext() {  // a browser has six connections: clicks need one
    for (const address of this.wanted) {
      if (this.fetching.size >= 4) return;
      if (!this.fetching.has(address)) this.fetch(address);
    }
  }

  async fetch(address) {
    const end = new AbortController();
    this.fetching.set(address, end);
    let picture = null;
    try {
      const answer = await fetch(address, { signal: end.signal });
      if (answer.ok) picture = await createImageBitmap(await answer.blob());
    } catch (error) {
      if (end.signal.aborted) return;
    }
    if (this.fetching.get(address) !== end) return;
    this.fetching.delete(address);
    this.kept.set(address, picture);
    if (this.kept.size > 800) this.kept.delete(this.kept.keys().next().value);
    this.wanted = this.wanted.filter((other) => other !== address);
    this.fetchNext();
    this.onChange();
  }

  clear() {
    this.want([]);
    this.kept.clear();
  }
}

class Viewer {
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onChange = onChange;
    this.onPick = () => {};
    this.tiles = new Tiles(() => this.draw());
    this.layers = [];        // {url(level, column, row), opacity}, from the lowest up
    this.outlines = [];      // {rings, colour, width}
    this.answers = [];       // the same, of a question, below the outlines
    this.analysed = [];      // rings around what was looked at
    this.hidden = false;     // all that lies over the tissue
    this.frame = null;       // [x, y, width, height] that was looked at
    this.marks = [];         // {x, y, colour, text}
    this.slide = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  open(slide) {  // {width, height, tile, last, analysed}
    this.slide = slide;
    this.tiles.clear();
    this.analysed = slide.analysed;
    this.outlines = [];
    this.answers = [];
    this.frame = null;
    this.marks = [];
    this.fit();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.scale = 0.95 * Math.min(width / this.slide.width, height / this.slide.height);
    this.x = this.slide.width / 2;
    this.y = this.slide.height / 2;
    this.draw();
  }

  go(x, y, scale) {
    this.x = x;
    this.y = y;
    this.scale = scale || this.scale;
    this.draw();
  }

  zoom(factor, px, py) {  // around a place of the canvas
    const [x, y] = this.toSlide(px, py);
    const least = 0.5 * Math.min(this.canvas.clientWidth / this.slide.width, this.canvas.clientHeight / this.slide.height);
    const scale = Math.min(8, Math.max(least, this.scale * factor));
    this.x = x + (this.x - x) * this.scale / scale;
    this.y = y + (this.y - y) * this.scale / scale;
    this.scale = scale;
    this.draw();
  }

  toSlide(px, py) {
    return [this.x + (px - this.canvas.clientWidth / 2) / this.scale, this.y + (py - this.canvas.clientHeight / 2) / this.scale];
  }

  toCanvas(x, y) {
    return [(x - this.x) * this.scale + this.canvas.clientWidth / 2, (y - this.y) * this.scale + this.canvas.clientHeight / 2];
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }

  paint() {
    const { canvas, context, slide } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!slide) return;
    this.x = Math.min(slide.width, Math.max(0, this.x));
    this.y = Math.min(slide.height, Math.max(0, this.y));
    const [left, top] = this.toCanvas(0, 0);
    context.fillStyle = "#fff";
    context.fillRect(left, top, slide.width * this.scale, slide.height * this.scale);
    const level = Math.max(0, Math.min(slide.last, Math.ceil(slide.last + Math.log2(this.scale * ratio) - 0.3)));
    this.missing = [];  // [address, distance from the centre]
    this.layers.slice(0, this.hidden ? 1 : undefined).forEach((layer, depth) => {
      context.globalAlpha = layer.opacity;
      if (layer.opacity > 0) this.paintLayer(layer, level, depth);
    });
    context.globalAlpha = 1;
    this.tiles.want(this.missing.sort((one, other) => one[1] - other[1]).map(([address]) => address));
    if (!this.hidden) this.paintOver();
    this.onChange(this);
  }

  paintOver() {
    this.paintAnalysed();
    if (this.frame) this.paintFrame(this.frame);
    this.answers.forEach((outline) => this.paintOutline(outline));
    this.outlines.forEach((outline) => this.paintOutline(outline));
    this.marks.forEach((mark) => this.paintMark(mark));
  }

  paintLayer(layer, level, depth) {
    const span = this.slide.tile * 2 ** (this.slide.last - level);  // level-0 pixels of a tile
    const [x0, y0] = this.toSlide(0, 0), [x1, y1] = this.toSlide(this.canvas.clientWidth, this.canvas.clientHeight);
    const columns = Math.ceil(this.slide.width / span), rows = Math.ceil(this.slide.height / span);
    for (let row = Math.max(0, Math.floor(y0 / span)); row < Math.min(rows, y1 / span); row++) {
      for (let column = Math.max(0, Math.floor(x0 / span)); column < Math.min(columns, x1 / span); column++) {
        this.paintTile(layer, level, column, row, depth);
      }
    }
  }

  paintTile(layer, level, column, row, depth) {
    const address = layer.url(level, column, row), own = this.tiles.get(address);
    const step = 2 ** (this.slide.last - level), span = this.slide.tile * step;
    if (own) return this.place(own, 0, 0, own.width, own.height, column * span, row * span, own.width * step, own.height * step);
    const away = Math.hypot((column + 0.5) * span - this.x, (row + 0.5) * span - this.y);
    this.missing.push([address, depth * (this.slide.width + this.slide.height) + away]);  // tissue first
    for (let up = 1; up <= level; up++) {  // meanwhile a coarser one
      const whole = 2 ** up;
      const image = this.tiles.get(layer.url(level - up, Math.floor(column / whole), Math.floor(row / whole)));
      if (!image) continue;
      const side = this.slide.tile / whole, left = (column % whole) * side, top = (row % whole) * side;
      const width = Math.min(side, image.width - left), height = Math.min(side, image.height - top);
      if (width > 0 && height > 0) this.place(image, left, top, width, height, column * span, row * span, width * step * whole, height * step * whole);
      return;
    }
  }

  place(image, left, top, width, height, x, y, across, down) {
    let [px, py] = this.toCanvas(x, y), [qx, qy] = this.toCanvas(x + across, y + down);
    [px, py, qx, qy] = [px, py, qx, qy].map(Math.round);  // whole pixels, or seams shine through
    this.context.imageSmoothingEnabled = this.scale < 2;
    this.context.drawImage(image, left, top, width, height, px, py, qx - px, qy - py);
  }

  trace(rings) {
    const { context } = this;
    context.beginPath();
    for (const ring of rings) {
      ring.forEach(([x, y], index) => { const [px, py] = this.toCanvas(x, y); index ? context.lineTo(px, py) : context.moveTo(px, py); });
      context.closePath();
    }
  }

  paintAnalysed() {  // what lies outside was never looked at: veiled, behind a dashed line
    const { context, slide } = this;
    this.trace([[[0, 0], [slide.width, 0], [slide.width, slide.height], [0, slide.height]], ...this.analysed]);
    context.fillStyle = "rgb(120 120 120 / 0.22)";
    context.fill("evenodd");
    this.trace(this.analysed);
    context.lineWidth = 1.5;
    for (const [colour, start] of [["#fff", 0], ["#222", 5]]) {
      context.setLineDash([5, 5]);
      context.lineDashOffset = start;
      context.strokeStyle = colour;
      context.stroke();
    }
    context.setLineDash([]);
  }

  paintOutline({ rings, colour, width }) {
    const { context } = this;
    this.trace(rings.filter((ring, number) => !number || !this.isSpeck(ring)));
    for (const [stroke, thick] of [["#fff", width + 2.5], [colour, width]]) {
      context.strokeStyle = stroke;
      context.lineWidth = thick;
      context.stroke();
    }
  }

  isSpeck(ring) {  // a hole too small to be told from its own border
    const x = ring.map((place) => place[0]), y = ring.map((place) => place[1]);
    const least = Math.min(Math.max(...x) - Math.min(...x), Math.max(...y) - Math.min(...y));
    return least * this.scale < 8;
  }

  paintFrame([x, y, width, height]) {
    const { context } = this, [px, py] = this.toCanvas(x, y);
    context.setLineDash([6, 4]);
    context.strokeStyle = "#111";
    context.lineWidth = 1.5;
    context.strokeRect(px, py, width * this.scale, height * this.scale);
    context.setLineDash([]);
  }

  paintMark({ x, y, colour, text }) {
    const { context } = this, [px, py] = this.toCanvas(x, y);
    context.beginPath();
    context.arc(px, py, 9, 0, 7);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    context.stroke();
    context.fillStyle = "#fff";
    context.font = "bold 12px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, px, py + 0.5);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (this.slide) this.zoom(2 ** (-event.deltaY / 300), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      this.travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => {
      this.pointers.delete(event.pointerId);
      canvas.classList.remove("moving");
      if (this.slide && this.travelled < 5) this.onPick(...this.toSlide(event.offsetX, event.offsetY));
    });
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.slide) return;
    const now = [event.offsetX, event.offsetY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId);
    const length = Math.hypot(now[0] - before[0], now[1] - before[1]);
    this.travelled += length;
    this.pointers.set(event.pointerId, now);
    if (other) {  // two fingers
      const apart = (place) => Math.hypot(place[0] - other[1][0], place[1] - other[1][1]);
      return this.zoom(apart(now) / Math.max(1, apart(before)), ...other[1]);
    }
    if (this.travelled < 5) return;
    this.canvas.classList.add("moving");
    this.go(this.x - (now[0] - before[0]) / this.scale, this.y - (now[1] - before[1]) / this.scale);
  }

  key(event) {
    if (!this.slide || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.2 * this.canvas.clientWidth / this.scale;
    const centre = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const keys = {
      ArrowLeft: () => this.go(this.x - step, this.y), ArrowRight: () => this.go(this.x + step, this.y),
      ArrowUp: () => this.go(this.x, this.y - step), ArrowDown: () => this.go(this.x, this.y + step),
      "+": () => this.zoom(1.5, ...centre), "=": () => this.zoom(1.5, ...centre), "-": () => this.zoom(1 / 1.5, ...centre),
      0: () => this.fit(), Enter: () => this.onPick(this.x, this.y),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}
