(function () {
  "use strict";
  var boxes = Array.prototype.slice.call(document.querySelectorAll("[data-layer]"));
  function show(box) {
    var number = box.dataset.layer, range = document.querySelector('[data-opacity="' + number + '"]');
    document.getElementById("layer-" + number).style.opacity = box.checked ? range.value / 100 : 0;
  }
  function set(box, on) { box.checked = on; show(box); }
  boxes.forEach(function (box) {
    box.addEventListener("change", function () { show(box); });
    document.querySelector('[data-opacity="' + box.dataset.layer + '"]').addEventListener("input", function () { set(box, true); });
  });
  var objects = boxes.filter(function (box) { return "object" in box.dataset; });
  function all(on) { objects.forEach(function (box) { set(box, on); }); }
  document.querySelectorAll("[data-all]").forEach(function (button) {
    button.addEventListener("click", function () { all(Boolean(button.dataset.all)); });
  });
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    var map = document.querySelector('[data-key="' + event.key + '"]');
    if (map) { set(map, !map.checked); }
    if (event.key === "o") { all(!objects.some(function (box) { return box.checked; })); }
  });
  boxes.forEach(show);
}());
