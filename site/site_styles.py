"The colours of code: those of the figures, dark enough on white and light enough on black."
from pygments.style import Style
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Token

def style(text, background, comment, keyword, string, number, name, builtin):
    class Colors(Style):
        background_color = background
        styles = {Token: text, Comment: f'italic {comment}', Keyword: f'{keyword}',
                  Keyword.Constant: number, Operator.Word: keyword, String: string, Number: number,
                  Name.Function: f'bold {name}', Name.Class: f'bold {name}',
                  Name.Decorator: builtin, Name.Builtin: builtin, Name.Exception: builtin}
    return Colors

Light = style('#1f2933', '#f6f8fa', '#66707a', '#8d3f77', '#00684c', '#a84300', '#0060a0',
              '#5b4a00')
Dark = style('#dfe5ea', '#1c2126', '#97a3ae', '#e39fca', '#5fcba6', '#f0935a', '#7cc4f2', '#d8c27a')
