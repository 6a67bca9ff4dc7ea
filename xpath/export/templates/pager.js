(function () {
  "use strict";
  var SHOWN = 50, page = 0;
  var pager = document.getElementById("pager"), search = pager.querySelector("input");
  var rows = Array.prototype.slice.call(document.querySelectorAll("#slides tbody tr"));
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  function show() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var hits = rows.filter(function (row, number) {
      return words.every(function (word) { return texts[number].indexOf(word) >= 0; });
    });
    var last = Math.max(0, Math.ceil(hits.length / SHOWN) - 1);
    page = Math.min(Math.max(page, 0), last);
    rows.forEach(function (row) { row.hidden = true; });
    hits.slice(page * SHOWN, (page + 1) * SHOWN).forEach(function (row) { row.hidden = false; });
    pager.querySelector("[role=status]").textContent =
      hits.length + " of " + rows.length + " slides, page " + (page + 1) + " of " + (last + 1);
    pager.querySelector('[data-step="-1"]').disabled = page === 0;
    pager.querySelector('[data-step="1"]').disabled = page === last;
  }
  search.addEventListener("input", function () { page = 0; show(); });
  pager.querySelectorAll("[data-step]").forEach(function (button) {
    button.addEventListener("click", function () { page += Number(button.dataset.step); show(); });
  });
  if (rows.length > SHOWN) {
    pager.hidden = false;
    show();
    window.addEventListener("beforeprint", function () { rows.forEach(function (row) { row.hidden = false; }); });
    window.addEventListener("afterprint", show);
  }
}());
