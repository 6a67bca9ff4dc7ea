(function () {
  "use strict";
  var SHOWN = 50, FEW = 12, page = 0;
  var pager = document.getElementById("pager"), search = pager.querySelector("input");
  var body = document.querySelector("#slides tbody");
  var rows = Array.prototype.slice.call(body.rows).map(function (row) {
    return { row: row, text: row.textContent.toLowerCase() };
  });
  function show() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var hits = rows.filter(function (one) {
      return words.every(function (word) { return one.text.indexOf(word) >= 0; });
    });
    var last = Math.max(0, Math.ceil(hits.length / SHOWN) - 1);
    page = Math.min(Math.max(page, 0), last);
    rows.forEach(function (one) { one.row.hidden = true; });
    hits.slice(page * SHOWN, (page + 1) * SHOWN).forEach(function (one) { one.row.hidden = false; });
    pager.querySelector("[role=status]").textContent =
      hits.length + " of " + rows.length + " slides, page " + (page + 1) + " of " + (last + 1);
    pager.querySelector('[data-step="-1"]').disabled = page === 0;
    pager.querySelector('[data-step="1"]').disabled = page === last;
  }
  function sorter(column, type, sign) {
    return function (a, b) {
      var x = a.row.cells[column].textContent, y = b.row.cells[column].textContent;
      if (!x || !y) { return (x ? 0 : 1) - (y ? 0 : 1); } // what is not known comes last
      return sign * (type === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    };
  }
  function sortBy(button) {
    var head = button.parentNode, type = button.dataset.sort, before = head.getAttribute("aria-sort");
    var up = before ? before === "descending" : type === "text"; // numbers: the largest first
    document.querySelectorAll("#slides th").forEach(function (one) { one.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort(sorter(head.cellIndex, type, up ? 1 : -1));
    rows.forEach(function (one) { body.appendChild(one.row); });
    page = 0;
    show();
  }
  document.querySelectorAll(".sort").forEach(function (button) {
    button.addEventListener("click", function () { sortBy(button); });
  });
  search.addEventListener("input", function () { page = 0; show(); });
  pager.querySelectorAll("[data-step]").forEach(function (button) {
    button.addEventListener("click", function () { page += Number(button.dataset.step); show(); });
  });
  window.addEventListener("beforeprint", function () { rows.forEach(function (one) { one.row.hidden = false; }); });
  window.addEventListener("afterprint", show);
  pager.hidden = rows.length <= FEW;
  show();
}());
