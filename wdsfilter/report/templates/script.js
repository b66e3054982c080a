
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const state = { measure: data.measures[0], place: 0, group: "", search: "", most: 60 };
  const cards = [];
  for (const card of all(".card")) cards[card.dataset.number] = card;
  const captions = cards.map((card) => card.querySelector(".caption").textContent.toLowerCase());
  const count = (n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const share = (a, b) => (b ? (100 * a / b).toFixed(1) + "\u202f%" : "\u2013");
  const size = (n) => {
    for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
      if (n >= unit) return Number((n / unit).toPrecision(3)) + "\u202f" + name;
    return n + "\u202fB";
  };
  const plain = (n) => String(Number(n.toPrecision(6)));
  const nearest = (measure, value) => {
    const found = measure.edges.findIndex((edge) => edge >= value - 1e-9);
    return found < 0 ? measure.edges.length - 1 : found;
  };

  function keeps(card) {
    if (!card.open) return card.status === "kept";
    const value = card.values[state.measure.name];
    return value !== undefined && value >= state.measure.edges[state.place] - 1e-9;
  }

  function showThreshold() {
    const { measure, place } = state;
    if (!measure) return;
    const value = measure.edges[place], edges = measure.edges;
    const part = (value - edges[0]) / (edges[edges.length - 1] - edges[0]);
    const said = measure.label + " \u2265 " + plain(value);
    at("slider").max = edges.length - 1;
    at("slider").value = place;
    at("slider").setAttribute("aria-valuetext", said + ", keeps " + share(measure.kept[place], data.samples));
    at("r-threshold").textContent = said;
    at("r-kept").textContent = count(measure.kept[place]);
    at("r-share").textContent = share(measure.kept[place], data.samples);
    at("r-size").textContent = size(measure.bytes[place]);
    if (measure.right) {
      at("r-precision").textContent = share(measure.right[place], measure.kept[place]);
      at("r-recall").textContent = share(measure.right[place], data.worth);
    }
    for (const hero of all("[data-hero]")) {
      hero.hidden = hero.dataset.hero !== measure.name;
      if (hero.hidden) continue;
      for (const bar of hero.querySelectorAll("rect"))
        bar.setAttribute("class", Number(bar.dataset.low) >= value - 1e-6 ? "kept" : "other");
      for (const end of ["x1", "x2"]) hero.querySelector(".cut").setAttribute(end, 1000 * part);
    }
    for (const curve of all("[data-curve]")) {
      curve.hidden = curve.dataset.curve !== measure.name;
      const box = curve.querySelector("line.axis"), dot = curve.querySelector(".dot");
      dot.setAttribute("cx", part * box.getAttribute("x2"));
      dot.setAttribute("cy", (1 - measure.kept[place] / (data.samples || 1)) * box.getAttribute("y1"));
    }
    for (const table of all("[data-table]")) table.hidden = table.dataset.table !== measure.name;
    for (const button of all("[data-measure]"))
      button.setAttribute("aria-pressed", button.dataset.measure === measure.name);
    cards.forEach((card, n) => {
      const known = data.cards[n];
      if (!known.open) return;
      const fate = keeps(known) ? "kept" : "dropped", verdict = card.querySelector(".verdict");
      verdict.className = "verdict " + fate;
      verdict.querySelector(".state").textContent = fate;
    });
  }

  function members(group) {
    if (!group) return cards.map((_, n) => n);
    if ((group === "above" || group === "below") && state.measure) {
      const cut = state.measure.edges[state.place], name = state.measure.name;
      return data.cards.map((card, n) => [n, card.open ? card.values[name] - cut : NaN])
        .filter(([, d]) => (group === "above" ? d >= -1e-9 : d < -1e-9))
        .sort((a, b) => Math.abs(a[1]) - Math.abs(b[1])).slice(0, 24).map(([n]) => n);
    }
    return data.groups[group];
  }

  function showCards() {
    const wanted = state.search.toLowerCase();
    const found = members(state.group).filter((n) => captions[n].includes(wanted));
    const shown = new Set(found.slice(0, state.most));
    cards.forEach((card, n) => { card.hidden = !shown.has(n); });
    at("cards").append(...found.map((n) => cards[n]));
    at("more").hidden = found.length <= state.most;
    at("found").textContent = count(found.length) + (found.length === 1 ? " pair" : " pairs");
    for (const button of all("[data-group]"))
      button.setAttribute("aria-pressed", button.dataset.group === state.group);
  }

  function remember() {
    const parts = new URLSearchParams();
    if (state.measure && state.measure !== data.measures[0]) parts.set("measure", state.measure.name);
    if (state.measure && state.place !== nearest(state.measure, state.measure.start))
      parts.set("threshold", plain(state.measure.edges[state.place]));
    if (state.group) parts.set("group", state.group);
    if (state.search) parts.set("search", state.search);
    try { history.replaceState(null, "", "#" + parts); } catch { /* a page without an address */ }
  }

  function recall() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const named = data.measures.find((measure) => measure.name === parts.get("measure"));
    state.measure = named || data.measures[0];
    const value = Number.parseFloat(parts.get("threshold"));
    if (state.measure) state.place = nearest(state.measure, Number.isFinite(value) ? value : state.measure.start);
    const group = parts.get("group") || "";
    state.group = Object.hasOwn(data.groups, group) ? group : "";
    at("search").value = state.search = parts.get("search") || "";
    showThreshold();
    showCards();
  }

  function moved() {
    showThreshold();
    if (state.group === "above" || state.group === "below") showCards();
    remember();
  }

  if (state.measure) {
    at("slider").addEventListener("input", () => { state.place = Number(at("slider").value); moved(); });
    at("reset").addEventListener("click", () => {
      state.measure = data.measures[0];
      state.place = nearest(state.measure, state.measure.start);
      moved();
    });
    for (const button of all("[data-measure]")) button.addEventListener("click", () => {
      state.measure = data.measures.find((measure) => measure.name === button.dataset.measure);
      state.place = nearest(state.measure, state.measure.start);
      moved();
    });
  }
  for (const button of all("[data-group]")) button.addEventListener("click", () => {
    Object.assign(state, { group: button.dataset.group, most: 60 });
    showCards();
    remember();
  });
  at("search").addEventListener("input", () => { state.search = at("search").value.trim(); showCards(); remember(); });
  at("more").addEventListener("click", () => { state.most += 120; showCards(); });
  addEventListener("hashchange", recall);
  recall();
})();
