(() => {
  const { data, at, all, count, share, plain, shownWhole } = page;
  const letters = ["A", "B"];
  const starts = data.sides.map((side) => side.start);
  let places = [...starts];
  const state = { group: Object.keys(data.groups).find((group) => data.groups[group].length) || "", search: "" };
  const cards = [];
  for (const card of all(".card")) cards[card.dataset.number] = card;
  const captions = cards.map((card) => card.querySelector(".caption").textContent.toLowerCase());

  // above[i][j]: pairs that reach place i in A and place j in B
  const above = data.joint.map((row) => [...row, 0]);
  above.push(above[0].map(() => 0));
  for (let i = above.length - 2; i >= 0; i--)
    for (let j = above[i].length - 2; j >= 0; j--) above[i][j] += above[i + 1][j] + above[i][j + 1] - above[i + 1][j + 1];

  function showCounts() {
    const [a, b] = places.map((place) => place + 1);
    const total = above[0][0], first = above[a][0], second = above[0][b], both = above[a][b];
    const same = total - first - second + 2 * both;
    const chance = (first * second + (total - first) * (total - second)) / total;
    const numbers = { "r-11": both, "r-10": first - both, "r-01": second - both, "r-00": total - first - second + both };
    for (const [id, number] of Object.entries(numbers)) at(id).textContent = count(number);
    at("r-agreement").textContent = count(same);
    at("r-same").textContent = share(same, total);
    at("r-kappa").textContent = total > chance ? ((same - chance) / (total - chance)).toFixed(3) : "\u2013";
    at("r-first").textContent = share(first, total);
    at("r-second").textContent = share(second, total);
    at("r-overlap").textContent = share(both, first + second - both);
    letters.forEach((letter, n) => {
      const slider = at("slider-" + letter), side = data.sides[n];
      if (!slider) return;
      const said = side.label + " \u2265 " + plain(side.edges[places[n]]);
      slider.value = places[n];
      slider.setAttribute("aria-valuetext", said);
      at("r-" + letter).textContent = said;
    });
  }

  function showCards() {
    const wanted = state.search.toLowerCase();
    const found = (data.groups[state.group] || []).filter((n) => captions[n].includes(wanted));
    const shown = new Set(found);
    cards.forEach((card, n) => { card.hidden = !shown.has(n); });
    at("cards").append(...found.map((n) => cards[n]));
    at("found").textContent = count(found.length) + (found.length === 1 ? " pair" : " pairs");
    for (const button of all("[data-group]"))
      button.setAttribute("aria-pressed", button.dataset.group === state.group);
  }

  letters.forEach((letter, n) => {
    const slider = at("slider-" + letter);
    if (slider) slider.addEventListener("input", () => { places[n] = Number(slider.value); showCounts(); });
  });
  at("reset").addEventListener("click", () => { places = [...starts]; showCounts(); });
  for (const button of all("[data-group]"))
    button.addEventListener("click", () => { state.group = button.dataset.group; showCards(); });
  at("search").addEventListener("input", () => { state.search = at("search").value.trim(); showCards(); });
  shownWhole();
  showCounts();
  showCards();
})();
