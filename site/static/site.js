// MathJax comes from this folder and typesets only what Sphinx marked as mathematics.
window.MathJax = {
  options: { enableMenu: false },
  svg: { fontCache: 'global', displayAlign: 'center' },
  tex: { inlineMath: [['\\(', '\\)']], displayMath: [['\\[', '\\]']] },
  startup: {
    elements: ['.math'],
    pageReady: () => MathJax.startup.defaultPageReady().then(() => {
      const narrow = () => document.querySelectorAll('span.math').forEach(m => {      // an inline formula wider than the column scrolls in itself
        m.classList.remove('wide');
        const room = m.closest('p, li, td, th, blockquote, h1, h2, h3, dd');
        if (room && m.firstElementChild && m.firstElementChild.getBoundingClientRect().width > room.clientWidth) m.classList.add('wide');
      });
      narrow();
      addEventListener('resize', narrow);
      if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
      document.documentElement.dataset.typeset = 'done';
    }),
  },
};
