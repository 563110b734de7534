// The switches: setting, loss, schedule, plain training, rows of the table, colours.
function setUpFilters() {
  const form = document.getElementById("filters");
  const smoothing = DATA.groups.filter((group) => group.smooths);
  if (DATA.settings.length > 1) form.append(settingSelect());
  for (const key of ["loss", "schedule"]) {
    const values = [...new Set(smoothing.map((group) => group[key]))];
    if (values.length) form.append(checkboxes(key, values));
  }
  if (smoothing.length < DATA.groups.length) form.append(plainSwitch());
  if (document.querySelector("#means tr.scaled")) {
    const names = { all: "both", plain: "as trained", scaled: "scaled" };
    const bar = segments("rows", element("div", { class: "segments" }), names);
    form.append(element("fieldset", {}, element("legend", {}, "Rows"), bar));
  }
  form.append(element("p", { id: "status", role: "status" }));
  form.addEventListener("submit", (event) => event.preventDefault());
  listeners.push(() => {
    const shown = DATA.groups.filter(isShown).length;
    document.getElementById("status").textContent = `${shown} of ${DATA.groups.length} groups shown`;
  });
}

function settingSelect() {
  const options = DATA.settings.map(({ name }, number) => element("option", { value: number }, name || "(none)"));
  const select = element(
    "select",
    {
      id: "setting",
      change: () => change({ setting: select.value === "" ? null : Number(select.value), panels: [null, null, null] }),
    },
    element("option", { value: "" }, "all settings"),
    ...options,
  );
  if (state.setting >= DATA.settings.length) state.setting = null;
  select.value = state.setting ?? "";
  return element("label", {}, "Setting ", select);
}

function checkboxes(key, values) {
  const boxes = values.map((value) => {
    const box = element("input", {
      type: "checkbox",
      name: key,
      value,
      checked: !state.hidden[key].includes(value),
      change: () => {
        const others = state.hidden[key].filter((other) => other !== value);
        change({ hidden: { ...state.hidden, [key]: box.checked ? others : [...others, value] } });
      },
    });
    return element("label", {}, box, value === "-" ? "none" : value);
  });
  return element("fieldset", {}, element("legend", {}, capital(key)), ...boxes);
}

function plainSwitch() {
  const box = element("input", {
    type: "checkbox",
    name: "plain",
    checked: !state.hidden.plain,
    change: () => change({ hidden: { ...state.hidden, plain: !box.checked } }),
  });
  return element("fieldset", {}, element("legend", {}, "Baseline"), element("label", {}, box, "plain training"));
}

// One of a few, as radio buttons that look like one bar.
function segments(key, bar, names) {
  for (const [value, words] of Object.entries(names)) {
    const radio = element("input", {
      type: "radio",
      name: key,
      value,
      checked: state[key] === value,
      change: () => change({ [key]: value }),
    });
    bar.append(element("label", {}, radio, words));
  }
  return bar;
}

function setUpTheme() {
  segments("theme", document.getElementById("theme"), { auto: "Auto", light: "Light", dark: "Dark" });
  const apply = () => {
    document.documentElement.dataset.theme = state.theme;
  };
  listeners.unshift(apply); // before anything is drawn
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));
}

// A page of --watch loads itself again; the reader can stop that.
function setUpReload() {
  if (DATA.refresh === null) return;
  const box = element("input", {
    type: "checkbox",
    checked: state.reload,
    change: () => change({ reload: box.checked }),
  });
  const every = `load again every ${DATA.refresh} s, as --watch writes it`;
  document.getElementById("refresh").append(element("label", {}, box, every));
  setInterval(
    () => {
      if (state.reload) location.reload();
    },
    1000 * Math.max(1, DATA.refresh),
  );
}
