// Sorts and filters tables by mouse or keyboard, and loads a page that is renewed again.
document.documentElement.classList.add('js');

const tables = [...document.querySelectorAll('table')].map(table => {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const search = table.closest('.scroll').previousElementSibling.querySelector('input');
  const count = search.closest('.filter').querySelector('[role=status]');
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return 'missing' in cell.dataset ? undefined : cell.dataset.value ?? cell.textContent;
  };
  const compare = (a, b) => isNaN(a) || isNaN(b)
    ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
  const sort = (column, up) => {
    heads.forEach(head => head.removeAttribute('aria-sort'));
    heads[column].setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const keyed = [...body.rows].map(row => [keyOf(row, column), row]);
    keyed.sort(([a], [b]) => (a === undefined) - (b === undefined)
      || (a === undefined ? 0 : (up ? 1 : -1) * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    const all = body.rows.length.toLocaleString('en');
    count.textContent = words.length ? `${shown.toLocaleString('en')} of ${all} rows` : `${all} rows`;
  };
  heads.forEach((head, column) => {
    // The text stays outside of the button: paper repeats heads on every sheet, but no buttons.
    const button = document.createElement('button');
    head.ariaLabel = head.textContent;
    button.ariaLabel = `Sort by ${head.textContent}`;
    head.append(button);
    head.onclick = () => sort(column, head.getAttribute('aria-sort') !== 'ascending');
  });
  search.oninput = filter;
  return {
    state: () => {
      const column = heads.findIndex(head => head.hasAttribute('aria-sort'));
      const up = column >= 0 && heads[column].getAttribute('aria-sort') === 'ascending';
      return {column, up, words: search.value};
    },
    restore: ({column, up, words}) => {
      search.value = words;
      if (words) filter();
      if (column in heads) sort(column, up);
    },
  };
});

// What the reader has chosen is kept from one version of the page to the next.
const renew = document.getElementById('renew_');
const place = `resflax ${location.pathname}`;
const kept = sessionStorage.getItem(place);
if (kept) {
  const {top, states, paused} = JSON.parse(kept);
  sessionStorage.removeItem(place);
  states.slice(0, tables.length).forEach((state, i) => tables[i].restore(state));
  if (renew) renew.checked = !paused;
  scrollTo(0, top);
}
if (renew) setInterval(() => {
  if (!renew.checked || document.hidden) return;
  const states = tables.map(table => table.state());
  sessionStorage.setItem(place, JSON.stringify({top: scrollY, states, paused: !renew.checked}));
  location.reload();
}, 1000 * renew.dataset.seconds);
