(function () {
  "use strict";
  function all(selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); }
  var words = all("button.word"), layers = all("[data-layer]"), outlines = all("[data-outlines]");
  var told = document.getElementById("told"), first = told.textContent, lit = null;
  function of(word) { return word.dataset.layers ? word.dataset.layers.split(" ") : []; }
  function show(chosen) {
    layers.forEach(function (image) { image.style.opacity = chosen === null ? 0.5 : chosen.indexOf(image.dataset.layer) >= 0 ? 0.6 : 0; });
    outlines.forEach(function (group) {
      var on = chosen === null || chosen.indexOf(group.dataset.outlines) >= 0;
      group.setAttribute("class", !on ? "off" : chosen === null ? "" : "lit");
    });
  }
  function mark(chosen) {
    words.forEach(function (word) {
      word.setAttribute("aria-pressed", String(chosen !== null && of(word).some(function (one) { return chosen.indexOf(one) >= 0; })));
    });
  }
  function say(word) {
    if (word.dataset.status && !of(word).length) { return "“" + word.textContent + "”: " + word.dataset.status + "."; }
    var counts = of(word).map(function (index) {
      var row = document.querySelectorAll("#layers tbody tr")[index].children;
      return row[0].textContent.trim() + ": " + row[1].textContent + (row[1].textContent === "1" ? " object" : " objects") + (row[2].textContent ? " (" + row[2].textContent + ")" : "");
    });
    var more = word.title && word.title.indexOf(":") > 0 ? " Source: " + word.title + "." : "";
    return (counts.join("; ") || (word.dataset.means ? word.dataset.means + ": no mask" : word.textContent)) + (word.dataset.status ? "; " + word.dataset.status : "") + "." + more;
  }
  function choose(word) {
    lit = lit === word ? null : word;
    var chosen = lit && of(lit);
    show(chosen);
    mark(chosen);
    if (lit) { lit.setAttribute("aria-pressed", "true"); }
    all("path.chosen").forEach(function (path) { path.removeAttribute("class"); });
    told.textContent = lit ? say(lit) : first;
  }
  words.forEach(function (word) { word.addEventListener("click", function () { choose(word); }); });
  all("path").forEach(function (path) {
    path.addEventListener("click", function () {
      var index = path.parentNode.dataset.outlines;
      lit = null;
      show(null);
      mark([index]);
      all("path.chosen").forEach(function (other) { other.removeAttribute("class"); });
      path.setAttribute("class", "chosen");
      told.textContent = path.dataset.id + ": " + path.dataset.numbers;
    });
  });
  show(null);
}());
