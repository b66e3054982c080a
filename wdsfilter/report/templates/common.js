"use strict";
const page = (() => {
  const at = (id) => document.getElementById(id);
  return {
    at,
    data: JSON.parse(at("data").textContent),
    all: (selector) => [...document.querySelectorAll(selector)],
    count: (n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f"),
    share: (a, b) => (b ? (100 * a / b).toFixed(1) + "\u202f%" : "\u2013"),
    shownWhole: () => {
      const button = at("whole");
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", at("cards").classList.toggle("whole"));
      });
    },
    plain: (n) => String(Number(n.toPrecision(6))),
  };
})();
