// The review page: which slide, which layers, which object, which finding.
"use strict";

const LAYERS = [
  { id: "objects", key: "1", name: "objects in their colours", on: true, opacity: 1, outlined: true },
  { id: "patch_map", key: "2", name: "patch map (standard model)", on: false, opacity: 0.8, signed: true },
  { id: "object_map", key: "3", name: "object-aware map", on: false, opacity: 0.9, signed: true },
  { id: "local_map", key: "4", name: "object-aware map, patch by patch", on: false, opacity: 0.9, signed: true },
];
const WORDS = { agree: ["#117733", "✓"], disagree: ["#aa4499", "✗"], unsure: ["#666666", "?"] };
const byId = (id) => document.getElementById(id);
const state = { run: null, slide: null, shown: new Set(), objects: [], findings: [], chosen: null, point: null, number: 0 };
const viewer = new Viewer(byId("canvas"), overlayChanged);

function make(tag, values = {}, ...children) {
  const node = Object.assign(document.createElement(tag), values);
  node.append(...children.filter((child) => child !== null));
  return node;
}

async function ask(address, options = {}) {
  const answer = await fetch(address, options).catch(() => { throw new Error("The server does not answer; is it still running?"); });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error || `the server says ${answer.status}`);
  return said;
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

const signed = (value) => `${Math.abs(value) < 0.0005 ? "" : value < 0 ? "−" : "+"}${Math.abs(value).toFixed(Math.abs(value) < 0.1 ? 3 : 2)}`;
const percent = (value) => (value > 0.999 && value < 1 ? "> 99.9 %" : value < 0.001 && value > 0 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);
const area = (mm2) => (mm2 >= 0.001 ? `${mm2 < 0.1 ? mm2.toFixed(3) : mm2.toFixed(2)} mm²` : mm2 ? `${(1e6 * mm2).toFixed(0)} µm²` : "none");
const side = (value) => (value > 0 ? "for" : value < 0 ? "against" : "");
const slidePath = (id) => encodeURIComponent(id);

async function start() {
  if (location.search.includes("token=")) history.replaceState(null, "", location.pathname + location.hash);
  state.run = await ask("api/run");
  notice(state.run.unread);
  listSlides();
  byId("names").replaceChildren(...state.run.names.map((value) => make("option", { value })));
  window.addEventListener("hashchange", fromHash);
  LAYERS.forEach(layerControl);
  startAsking(state.run.regions);
  byId("reviewer").value = localStorage.getItem("xpath reviewer") || "";
  fromHash();
}

function listSlides() {
  byId("slide-list").replaceChildren(...state.run.slides.map((slide) => {
    const error = Boolean(slide.label && slide.predicted && slide.label !== slide.predicted);
    const sure = slide.probability === null ? "" : percent(slide.probability);
    const facts = [slide.predicted || "not predicted", slide.label && (error ? `labelled ${slide.label}` : ""), slide.split, slide.findings && `${slide.findings} ${slide.findings === 1 ? "finding" : "findings"}`, slide.explained ? "" : "not explained"].filter(Boolean);
    const button = make("button", { type: "button", disabled: !slide.explained, className: error ? "error" : "", title: error ? "the prediction is not the label" : "" },
      make("span", { className: "sign", textContent: error ? "✗" : "" }), make("b", { textContent: slide.id }), make("span", { className: "sure", textContent: sure }),
      make("small", { textContent: facts.join(" · ") }));
    button.dataset.slide = slide.id;
    button.addEventListener("click", () => { location.hash = slidePath(slide.id); });
    return make("li", {}, button);
  }));
}

function nextSlide(step) {
  const slides = state.run.slides.filter((one) => one.explained);
  const now = slides.findIndex((one) => state.slide && one.id === state.slide.id);
  const next = slides[now + step];
  if (next) location.hash = slidePath(next.id);
}

function fromHash() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const slide = state.run.slides.find((one) => one.id === wanted) || state.run.slides.find((one) => one.explained);
  if (!slide) return notice("No slide of this run has been explained yet; run `xpath explain` first.");
  document.querySelectorAll("[data-slide]").forEach((button) => {
    button.setAttribute("aria-current", String(button.dataset.slide === slide.id));
    if (button.dataset.slide === slide.id) button.scrollIntoView({ block: "nearest" });
  });
  openSlide(slide).catch((error) => notice(error.message));
}

function verdict(slide, listed) {
  const p = slide.probability["object-aware model"][slide.explained];
  const wrong = slide.label && slide.label !== slide.explained;
  const label = make("span", { className: wrong ? "wrong" : "", textContent: slide.label ? `${wrong ? "✗ " : ""}labelled ${slide.label}` : "no label" });
  return make("p", { title: `${slide.source}: object/logits` }, make("b", { textContent: slide.id }), ": the object-aware model says ",
    make("b", { textContent: `${slide.explained} (${percent(p)})` }), slide.calibrated ? "; " : ", not calibrated; ", label, listed.split ? ` · ${listed.split} slide` : "");
}

async function openSlide(listed) {
  const number = ++state.number, main = document.querySelector("main");
  main.ariaBusy = "true";
  try {
    await showSlide(listed, number);
  } finally {
    if (number === state.number) main.ariaBusy = "false";  // nothing moves any more
  }
}

async function showSlide(listed, number) {
  const slide = await ask(`api/slide/${slidePath(listed.id)}`);
  if (number !== state.number) return;  // another slide was chosen meanwhile
  state.slide = slide;
  state.shown = new Set(slide.object_classes.filter((one) => one.masked).map((one) => one.index));
  notice(slide.missing || state.run.unread);
  byId("verdict").replaceChildren(verdict(slide, listed));
  byId("report").hidden = !listed.report;
  byId("report").href = `run/slides/${slidePath(slide.id)}/export/report.html`;
  byId("sentences").hidden = !listed.sentences;
  byId("sentences").href = `run/slides/${slidePath(slide.id)}/export/findings.html`;
  byId("geojson").href = `findings/${slidePath(slide.id)}.geojson`;
  byId("classes-hint").textContent = `What each class of objects adds to the score (log-odds) of ${slide.explained}${slide.centred ? ", beyond the average training slide" : ""}. On this whole page numbers above 0, in red, speak for it. Click a name to see where.`;
  byId("disagreements").replaceChildren(...slide.disagreements.map((textContent) => make("li", { textContent })));
  byId("source").textContent = `Numbers: ${slide.source}, models/object_aware. Findings: review/findings.sqlite.`;
  document.querySelectorAll("#legend i").forEach((node) => { node.textContent = slide.explained; });
  viewer.open(slide);
  forgetAnswer();
  choose(null);
  listClasses();
  showLayers();
  await listFindings();
}

function layerControl(layer) {
  const box = make("input", { type: "checkbox", checked: layer.on, id: `layer-${layer.id}` });
  const range = make("input", { type: "range", min: 0, max: 100, value: 100 * layer.opacity, title: "opacity", id: `opacity-${layer.id}` });
  range.setAttribute("aria-label", `opacity of ${layer.name}`);
  box.addEventListener("change", () => {
    layer.on = box.checked;
    if (layer.on && layer.signed) LAYERS.filter((other) => other.signed && other !== layer).forEach((other) => { other.on = false; byId(`layer-${other.id}`).checked = false; });
    showLayers();
  });
  range.addEventListener("input", () => { layer.opacity = range.value / 100; showLayers(); });
  byId("layers").append(make("div", {}, make("label", {}, box, layer.name, make("kbd", { textContent: layer.key })), range));
  if (layer.id !== "objects") return;
  const fill = make("input", { type: "checkbox", id: "filled" });
  fill.addEventListener("change", () => { layer.outlined = !fill.checked; layer.opacity = fill.checked ? 0.5 : 1; range.value = 100 * layer.opacity; showLayers(); });
  byId("layers").append(make("div", { className: "indented" }, make("label", {}, fill, "filled, not outlined", make("kbd", { textContent: "o" }))));
}

function showSwatches() {  // as it is painted, over white
  const { opacity } = LAYERS[0];
  const alpha = Math.round(255 * opacity).toString(16).padStart(2, "0");
  document.querySelectorAll("[data-colour]").forEach((swatch) => { swatch.style.background = swatch.dataset.colour + alpha; });
  const signedLayer = LAYERS.find((layer) => layer.on && layer.signed);
  byId("legend").hidden = !signedLayer;
  if (signedLayer) byId("ramp").style.opacity = signedLayer.opacity;
}

function swatchOf(one) {
  const swatch = make("span", { className: "swatch" });
  swatch.dataset.colour = one.colour;
  return swatch;
}

function showLayers() {
  const id = slidePath(state.slide.id), stamp = `stamp=${state.slide.stamp}`;  // of other stamps the browser may keep tiles
  const classes = [...state.shown].sort((a, b) => a - b).join(",") || "-";
  const base = { opacity: state.slide.missing ? 0 : 1, url: (level, column, row) => `tile/${id}/${level}/${column}_${row}.jpg?${stamp}` };
  const over = LAYERS.filter((layer) => layer.on).map((layer) => ({
    opacity: layer.opacity,
    url: (level, column, row) => `layer/${id}/${layer.outlined ? "outlines" : layer.id}/${level}/${column}_${row}.png?${stamp}${layer.id === "patch_map" ? "" : `&object_classes=${classes}`}`,
  }));
  viewer.layers = [base, ...over];
  showSwatches();
  viewer.draw();
}

function overlayChanged(view) {
  const waiting = view.tiles.wanted.length, name = view.hidden ? "Overlays are hidden: h shows them" : "";
  byId("loading").textContent = waiting ? `Loading ${waiting} ${waiting === 1 ? "tile" : "tiles"}…` : name;
  byId("loading").hidden = !waiting && !name;
  const { mpp } = state.slide || {};
  byId("scale").hidden = !mpp;
  if (!mpp) return;
  const most = 160 * mpp / view.scale;
  const um = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].filter((step) => step <= most).pop() || 1;
  byId("scale").querySelector("span").style.width = `${um / mpp * view.scale}px`;
  byId("scale").querySelector("b").textContent = um < 1000 ? `${um} µm` : `${um / 1000} mm`;
}

function listClasses() {
  const { object_classes: classes, rule, source } = state.slide;
  const widest = Math.max(...classes.map((one) => Math.abs(one.value)), 1e-9);
  const rows = [...classes].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).map((one) => {
    const box = make("input", { type: "checkbox", checked: state.shown.has(one.index), disabled: !one.masked });
    box.dataset.objectClass = one.index;
    box.setAttribute("aria-label", `show ${one.name}`);
    box.addEventListener("change", () => { box.checked ? state.shown.add(one.index) : state.shown.delete(one.index); showLayers(); });
    const bar = make("i");
    const half = 50 * Math.abs(one.value) / widest;
    Object.assign(bar.style, { left: `${one.value < 0 ? 50 - half : 50}%`, width: `${half}%`, background: one.value < 0 ? "var(--against)" : "var(--for)" });
    let visit = 0;
    const counted = one.masked ? `${one.count} ${one.count === 1 ? "object" : "objects"}` : "what no mask covers";
    const name = make("button", { type: "button", className: "name", title: `${one.label}; ${one.answers_for ? `answers for ${one.answers_for}; ` : ""}${counted}. Click: to the patches where it counts most` }, one.name);
    if (one.area === 0 && one.value) name.append(make("small", { textContent: "not found: its absence counts" }));
    name.disabled = !one.centres.length;
    name.addEventListener("click", () => { const [x, y] = one.centres[visit++ % one.centres.length]; choose(null); viewer.go(x, y, Math.max(viewer.scale, 0.5)); });
    const covers = make("span", { className: "value", textContent: !one.masked ? "" : one.mm2 === undefined ? percent(one.area) : area(one.mm2), title: one.masked ? `objects.h5: label_pixels; ${percent(one.area)} of the analysed area` : "" });
    const value = make("span", { className: `value ${side(one.value)}`, textContent: signed(one.value), title: `${source}: object/contribution${state.slide.centred ? " less object/class_baseline" : ""}` });
    return make("li", { className: one.area === 0 ? "absent" : "" }, box, swatchOf(one), name, covers, make("span", { className: "bar" }, bar), value);
  });
  byId("object-classes").replaceChildren(...rows);
  byId("rule").textContent = `Counted as objects: ${rule}.`;
  showSwatches();
}

function showClasses(all) {
  state.shown = new Set(all ? state.slide.object_classes.filter((one) => one.masked).map((one) => one.index) : []);
  listClasses();
  showLayers();
}

async function pick(x, y) {
  const classes = [...state.shown].join(",") || "-";
  const { objects } = await ask(`api/slide/${slidePath(state.slide.id)}/at?x=${x}&y=${y}&object_classes=${classes}`);
  state.objects = objects;
  state.point = [x, y];
  choose(objects[0] || null);
  if (!objects.length) byId("object").replaceChildren(make("p", { className: "hint", textContent: "No object that is shown lies here." }));
}

function choose(object) {
  state.chosen = object;
  byId("finding").hidden = !object;
  document.querySelector("aside").classList.toggle("chosen", Boolean(object));
  byId("saved").textContent = "";
  viewer.outlines = object ? [{ rings: object.rings, colour: "#111", width: 2 }] : [];
  viewer.draw();
  if (!object) return byId("object").replaceChildren(make("p", { className: "hint", textContent: "Click an object on the slide to see what it adds to the prediction, and what the model would say without it." }));
  const itsClass = state.slide.object_classes[object.object_class], numbers = object.numbers;
  const others = state.objects.map((other) => {
    const button = make("button", { type: "button", textContent: state.slide.object_classes[other.object_class].name });
    button.setAttribute("aria-pressed", String(other === object));
    button.addEventListener("click", () => choose(other));
    return button;
  });
  byId("object").replaceChildren(...[
    others.length > 1 ? make("div", { className: "others" }, ...others) : null,
    make("h3", {}, swatchOf(itsClass), itsClass.name),
    says(object), numberTable(object), object.hiding ? make("p", { className: "hint", textContent: object.hiding }) : null,
  ].filter(Boolean));
  showSwatches();
  byId("asked-name").textContent = itsClass.name;
  const mine = (state.findings || []).find((finding) => finding.object === object.name && finding.reviewer === byId("reviewer").value.trim());
  document.querySelectorAll("[name=verdict]").forEach((radio) => { radio.checked = Boolean(mine) && radio.value === mine.verdict; });
  byId("comment").value = mine ? mine.comment : "";
  byId("instead").value = mine ? mine.instead : "";
}

function says(object) {
  const itsClass = state.slide.object_classes[object.object_class], own = object.numbers["contribution"];
  const words = itsClass.value > 0 ? "speaks for " : itsClass.value < 0 ? "speaks against " : "says nothing about ";
  const adds = own === undefined ? "" : Math.abs(own) < 0.0005 ? " This object alone adds next to nothing." : ` This object alone adds ${signed(own)}.`;
  return make("p", { className: "says" }, "Its class as a whole ", make("span", { className: side(itsClass.value), textContent: words + object.explained }), itsClass.value ? ` (${signed(itsClass.value)}).` : ".", adds);
}

function numberTable(object) {
  const n = object.numbers, target = object.explained, source = state.slide.source;
  const change = (name) => (n[`${name}: log-odds`] === undefined ? null : `${signed(n[`${name}: log-odds`])} (without: ${percent(n[`${name}: probability without`])})`);
  const here = n.patches === 1 ? "this patch" : `these ${n.patches} patches`;
  const number = (name) => (n[name] === undefined ? null : signed(n[name]));
  const rows = [
    [`Object-aware model: speaks for ${target} where above 0`, "", ""],
    [`all of its class${state.slide.centred ? ", beyond the average training slide" : ""}`, number("contribution of its class"), `${source}: object/contribution${state.slide.centred ? " less object/class_baseline" : ""}`],
    ["this object (its share of its patches, by area)", number("contribution"), `${source}: object/patch_contribution`],
    [`what its class in ${here} changes`, change("with it here"), "exact, from models/object_aware and features.h5; without it attention moves to what is left"],
    ["what its class on the slide changes", change("with its class"), "exact, from models/object_aware and features.h5"],
    [`Standard model: speaks for ${target} where above 0`, "", ""],
    ["fall of its score if all of its class is hidden", number("blurred: fall of log-odds") || "not asked", `${source}: importance/effects`],
    ["if as much other tissue is hidden", number("other tissue blurred: fall of log-odds"), `${source}: importance/random`],
    ["Mask", "", ""],
    ["area", n["area um2"] === undefined ? null : area(n["area um2"] / 1e6), "objects.h5"],
    ["segmentor's confidence that it is there", n["confidence"] === undefined ? null : n["confidence"].toFixed(2), "objects.h5: confidence"],
  ];
  return make("table", {}, make("tbody", {}, ...rows.filter((row) => row[1] !== null).map(([name, value, from]) => (from
    ? make("tr", { title: from }, make("td", { textContent: name }), make("td", { textContent: value }))
    : make("tr", {}, make("th", { textContent: name, colSpan: 2 }))))));
}

async function listFindings() {
  const slide = state.slide, findings = await ask(`api/slide/${slidePath(slide.id)}/findings`);
  if (slide !== state.slide) return;
  state.findings = findings;
  const me = byId("reviewer").value.trim();
  const rows = findings.map((finding) => {
    const itsClass = state.slide.object_classes.find((one) => one.label === finding.label);
    const go = make("button", { type: "button", textContent: itsClass ? itsClass.name : finding.label });
    go.addEventListener("click", () => { viewer.go(finding.x, finding.y, Math.max(viewer.scale, 0.5)); pick(finding.x, finding.y).catch((error) => notice(error.message)); });
    const back = make("button", { type: "button", className: "mine", textContent: "take back" });
    back.addEventListener("click", () => takeBack(finding).catch((error) => notice(error.message)));
    return make("li", { className: finding.verdict }, finding.reviewer === me ? back : null,
      make("b", { textContent: `${WORDS[finding.verdict][1]} ${finding.verdict} ` }), go, finding.instead ? `, rather ${finding.instead}` : "", ` · ${finding.reviewer}`,
      finding.comment ? make("p", { textContent: finding.comment }) : null);
  });
  byId("findings").replaceChildren(...(rows.length ? rows : [make("p", { className: "hint", textContent: "None yet." })]));
  viewer.marks = findings.map((finding) => ({ x: finding.x, y: finding.y, colour: WORDS[finding.verdict][0], text: WORDS[finding.verdict][1] }));
  viewer.draw();
}

async function takeBack(finding) {
  await ask(`api/finding/${finding.id}`, { method: "DELETE", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ reviewer: finding.reviewer }) });
  await listFindings();
}

async function save(event) {
  event.preventDefault();
  const verdict = document.querySelector("[name=verdict]:checked"), reviewer = byId("reviewer").value.trim();
  if (!verdict) { byId("saved").textContent = "Choose agree, disagree or unsure first."; return; }
  if (!reviewer) { byId("saved").textContent = "Type your name or initials first."; byId("reviewer").focus(); return; }
  localStorage.setItem("xpath reviewer", reviewer);
  const [x, y] = state.point;
  const body = JSON.stringify({ x, y, object_class: state.chosen.object_class, verdict: verdict.value, reviewer, comment: byId("comment").value, instead: byId("instead").value.trim() });
  try {
    await ask(`api/slide/${slidePath(state.slide.id)}/findings`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    await listFindings();
    byId("saved").textContent = "Stored.";
  } catch (error) {
    byId("saved").textContent = `Not stored: ${error.message}`;
  }
}

function shortcut(event) {
  if (event.target.matches("input:not([type=checkbox]):not([type=range]):not([type=radio]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const layer = LAYERS.find((one) => one.key === event.key);
  if (layer) byId(`layer-${layer.id}`).click();
  if (event.key === "o") byId("filled").click();
  if (event.key === "h") { viewer.hidden = !viewer.hidden; viewer.draw(); }
  if (event.key === "[" || event.key === "]") nextSlide(event.key === "]" ? 1 : -1);
  const verdict = { a: "agree", d: "disagree", u: "unsure" }[event.key];
  if (verdict && state.chosen) document.querySelector(`[name=verdict][value=${verdict}]`).click();
}

function paintRamp() {
  const context = byId("ramp").getContext("2d");
  for (let x = 0; x < 160; x++) {
    const share = (x - 79.5) / 79.5;
    context.fillStyle = `rgba(${share > 0 ? "178,24,43" : "33,102,172"},${0.75 * Math.abs(share) ** 0.7})`;
    context.fillRect(x, 0, 1, 10);
  }
}

byId("finding").addEventListener("submit", save);
byId("all").addEventListener("click", () => showClasses(true));
byId("none").addEventListener("click", () => showClasses(false));
byId("zoom").addEventListener("click", (event) => {
  const canvas = byId("canvas"), centre = [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const action = event.target.dataset.zoom;
  if (action === "fit") viewer.fit();
  else if (action) viewer.zoom(action === "in" ? 1.5 : 1 / 1.5, ...centre);
});
document.addEventListener("keydown", shortcut);
viewer.onPick = (x, y) => pick(x, y).catch((error) => notice(error.message));
paintRamp();
start().catch((error) => notice(error.message));
