// Each captioned figure and table gets a link that saves it: the drawing as it is, the table as CSV.
document.addEventListener("DOMContentLoaded", () => {
  const add = (caption, text, name, href) => {
    const link = document.createElement("a");
    link.className = "download-part";
    link.textContent = text;
    link.href = href;
    link.download = name;
    link.setAttribute("aria-label", `Save ${name}`);
    caption.append(" ", link);
  };
  for (const figure of document.querySelectorAll("main figure[id]")) {
    const image = figure.querySelector("img");
    const caption = figure.querySelector("figcaption p");
    const kind = image?.getAttribute("src").match(/\.(svg|png|jpg)$/)?.[1];
    if (kind && caption) add(caption, kind.toUpperCase(), `${figure.id}.${kind}`, image.getAttribute("src"));
  }
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (table) =>
    [...table.querySelectorAll("tr")]
      .map((row) => [...row.children].map((one) => cell(one.textContent.trim())).join(","))
      .join("\r\n");
  for (const table of document.querySelectorAll("main table[id]")) {
    if (!table.caption) continue;
    // a mark at the start tells spreadsheets that the text is UTF-8
    const href = `data:text/csv;charset=utf-8,%EF%BB%BF${encodeURIComponent(csv(table) + "\r\n")}`;
    add(table.caption, "CSV", `${table.id}.csv`, href);
  }
});
