
(() => {
  const { data, at, all, count, share, plain, shownWhole } = page;
  if (!at("cards")) return; // no pair has been judged yet
  const state = { measure: data.measures[0], place: 0, group: "", search: "", most: 60 };
  const FOLLOWING = new Set(["above", "below", "wrong", "missed"]);
  const cards = [];
  for (const card of all(".card")) cards[card.dataset.number] = card;
  const captions = cards.map((card) => card.querySelector(".caption").textContent.toLowerCase());
  const size = (n) => {
    for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
      if (n >= unit) return Number((n / unit).toPrecision(3)) + "\u202f" + name;
    return n + "\u202fB";
  };
  const nearest = (measure, value) => {
    const found = measure.edges.findIndex((edge) => edge >= value - 1e-9);
    return found < 0 ? measure.edges.length - 1 : found;
  };

  function keeps(card) {
    if (!card.open) return card.status === "kept";
    const value = card.values[state.measure.name];
    return value !== undefined && value >= state.measure.edges[state.place] - 1e-9;
  }

  function interval(ends) {
    if (!ends) return "\u2013";
    const [low, middle, high] = ends.map((value) => (100 * value).toFixed(0));
    return `${middle}\u202f%\u00a0(${low}\u2013${high})`;
  }

  function showTruth(measure, place) {
    const right = measure.right[place], known = measure.known[place], estimate = measure.estimate;
    at("r-kept-right").textContent = count(right);
    at("r-kept-wrong").textContent = count(known - right);
    at("r-missed").textContent = count(data.right - right);
    at("r-rest").textContent = count(data.known - data.right - known + right);
    if (!estimate) {
      at("r-precision").textContent = share(right, known);
      at("r-recall").textContent = share(right, data.right);
      return;
    }
    const nearest = estimate.places.findLastIndex((edge) => edge <= place);
    at("r-precision").textContent = interval(estimate.precision[nearest]);
    at("r-recall").textContent = interval(estimate.recall[nearest]);
  }

  function showThreshold() {
    const { measure, place } = state;
    if (!at("slider")) return;
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
    if (measure.selects) at("r-where").textContent = `${measure.selects} >= ${plain(value)}${data.selected}`;
    if (measure.right) showTruth(measure, place);
    for (const cell of all("[data-grade]"))
      cell.classList.toggle("in", measure.name === "grade" && Number(cell.dataset.grade) >= value);
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
    const every = cards.map((_, n) => n);
    if (!group) return every;
    if (group === "wrong")
      return every.filter((n) => data.cards[n].truth !== null && data.cards[n].truth < data.worth && keeps(data.cards[n]));
    if (group === "missed") return every.filter((n) => data.cards[n].truth >= data.worth && !keeps(data.cards[n]));
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
    if (FOLLOWING.has(state.group)) showCards();
    remember();
  }

  if (at("slider")) {
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
  shownWhole();
  addEventListener("hashchange", recall);
  recall();
})();
