(() => {
  const { data, at, all } = page;
  const items = all(".item");
  const labels = new Map();
  let here = 0;

  function remember() {
    try { localStorage.setItem(data.store, JSON.stringify([...labels])); } catch { /* no storage: export in time */ }
  }

  function recall() {
    try {
      for (const [n, label] of JSON.parse(localStorage.getItem(data.store) || "[]")) labels.set(n, label);
    } catch { /* nothing that can be read */ }
    const open = data.items.findIndex((_, n) => !labels.has(n));
    here = open < 0 ? 0 : open;
  }

  function show() {
    items.forEach((item, n) => { item.hidden = n !== here; });
    const label = labels.get(here) || {};
    for (const button of all("[data-score]"))
      button.setAttribute("aria-pressed", Number(button.dataset.score) === label.score);
    for (const button of all("[data-keep]"))
      button.setAttribute("aria-pressed", String(label.keep) === button.dataset.keep);
    at("progress").value = labels.size;
    const done = labels.size === items.length ? "; all are graded: export the labels" : "";
    at("where").textContent = `Pair ${here + 1} of ${items.length}, ${labels.size} graded${done}`;
    at("export").disabled = !labels.size;
  }

  function go(step) {
    here = Math.min(Math.max(here + step, 0), items.length - 1);
    show();
  }

  function grade(label) {
    labels.set(here, label);
    remember();
    go(1);
  }

  function skip() {
    labels.delete(here);
    remember();
    go(1);
  }

  function file() {
    const found = [...labels].sort(([a], [b]) => a - b);
    return [data.head, ...found.map(([n, label]) => JSON.stringify({ ...data.items[n], ...label }))].join("\n") + "\n";
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([file()], { type: "application/jsonl" }));
    link.download = "labels.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (/^[0-9]$/.test(key)) grade({ score: Number(key) || 10 });
    else if (key === "k" || key === "d") grade({ keep: key === "k" });
    else if (key === "s") skip();
    else if (key === "arrowleft" || key === "backspace") go(-1);
    else if (key === "arrowright") go(1);
    else return;
    event.preventDefault();
  });
  for (const button of all("[data-score]"))
    button.addEventListener("click", () => grade({ score: Number(button.dataset.score) }));
  for (const button of all("[data-keep]"))
    button.addEventListener("click", () => grade({ keep: button.dataset.keep === "true" }));
  at("back").addEventListener("click", () => go(-1));
  at("skip").addEventListener("click", skip);
  at("export").addEventListener("click", download);
  at("clear").addEventListener("click", () => {
    if (!confirm(`Forget ${labels.size} grades?`)) return;
    labels.clear();
    remember();
    here = 0;
    show();
  });
  recall();
  show();
})();
