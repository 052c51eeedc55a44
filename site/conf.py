"""Sphinx, for the Markdown that build.py wrote next to this file's copy.
Run build.py, not sphinx-build."""
import html, json, re
from pathlib import Path
from docutils import nodes

here = Path(__file__).parent
# {page: {name in its code: where it leads}}
links = json.loads((here/'links.json').read_text(encoding='utf-8'))
extensions = ['myst_parser']
project, author, language = 'diffnb', 'the diffnb contributors', 'en'
copyright = 'the diffnb contributors, Apache 2.0'
exclude_patterns = ['_out']
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence']
myst_heading_anchors = 3
templates_path, html_static_path = ['templates'], ['_static']
html_theme, html_title, html_favicon = 'furo', 'diffnb', '_static/favicon.svg'
html_css_files, html_js_files = ['site.css'], [('site.js', {'priority': 100})]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_permalinks_icon = '#'
html_math_renderer = 'plain'
smartquotes_action = 'q'
python_maximum_signature_line_length = 88
add_module_names = False
pygments_style, pygments_dark_style = 'site_styles.Light', 'site_styles.Dark'
html_sidebars = {'**': ['sidebar/brand.html', 'sidebar/search.html', 'sidebar/scroll-start.html',
                        'sidebar/try.html', 'sidebar/navigation.html',
                        'sidebar/scroll-end.html', 'sidebar/variant-selector.html']}
html_context = {'try_it': 'denoise/index.html'
                if (here/'extra/denoise/index.html').exists() else ''}
html_extra_path = ['extra']
html_theme_options = {
    'light_css_variables': {'color-brand-primary': '#0072B2', 'color-brand-content': '#0067a0',
                            'color-brand-visited': '#0067a0'},
    'dark_css_variables': {'color-brand-primary': '#6db9e8', 'color-brand-content': '#6db9e8',
                           'color-brand-visited': '#6db9e8'},
    'top_of_page_buttons': []}

def inline(self, node):
    self.body.append(f'<span class="math">\\({html.escape(node.astext())}\\)</span>')
    raise nodes.SkipNode

def block(self, node):
    "A displayed equation; the first of its number on a page carries it as an anchor."
    self.tags = getattr(self, 'tags', set())
    new = [t for t in re.findall(r'\\tag\{(\w+)\}', node.astext()) if t not in self.tags]
    self.tags.update(new)
    anchors = ''.join(f'<span class="anchor" id="{t}"></span>' for t in new)
    self.body.append(
        f'<div class="math" tabindex="0">{anchors}\\[{html.escape(node.astext().strip())}\\]</div>')
    raise nodes.SkipNode

def finish(app, page, template, context, doctree):
    """In the code of a page, a name of the library leads to its place in the reference;
    and MathJax comes only where there are formulas."""
    body = context.get('body') or ''
    if 'class="math"' in body: app.add_js_file('tex-svg.js', defer='defer')
    def keep(m): return f'<span class="keep">{m[0]}</span>' if m[1] or m[2] else m[0]
    # a formula is not parted from its bracket and comma
    body = re.sub(r'([(\[“‘]*)<span class="math">[^<]*</span>([.,;:!?)\]”’]*)', keep, body)
    known = links.get(page, {})
    def name(m):
        target = known.get(m[3])
        return f'<a href="{target}" class="{m[2]}">{m[3]}</a>' if target and not m[1] else m[0]
    def listing(m):
        return re.sub(r'(<span class="o">\.</span>)?<span '
                      r'class="(n|nf|nc|fm)">(\w+)</span>(?!<span class="o">=</span>)', name, m[0])
    if body:
        context['body'] = re.sub(r'<div class="highlight-python.*?</pre>', listing, body,
                                 flags=re.S)

def setup(app):
    app.add_html_math_renderer('plain', (inline, None), (block, None))
    app.connect('html-page-context', finish)
# they are fetched page by page, which a browser forbids from a file
html_show_search_summary = False
