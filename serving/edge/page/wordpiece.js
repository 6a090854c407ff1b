// BERT's tokenizer, as the text encoder's tokenizer.json asks for it: clean, split, lower, then the longest pieces first.
const ACCENT = /\p{Mn}/u, SPACE = /\p{White_Space}/u, CONTROL = /[\p{Cc}\p{Cf}\p{Co}]/u;
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/u;
const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f],
  [0x2b920, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];
const chinese = (character) => CHINESE.some(([first, last]) => first <= character.codePointAt(0) && character.codePointAt(0) <= last);

export class WordPiece {
  /** settings: tokenizer.json; longest: tokens of a prompt, [CLS] and [SEP] among them. */
  constructor(settings, longest) {
    const { vocab, unk_token, continuing_subword_prefix, max_input_chars_per_word } = settings.model;
    this.vocabulary = new Map(Object.entries(vocab));
    this.unknown = this.vocabulary.get(unk_token);
    this.prefix = continuing_subword_prefix;
    this.longestWord = max_input_chars_per_word;
    this.longest = longest;
    this.special = new Map(settings.added_tokens.map((token) => [token.content, token.id]));
    this.specials = new RegExp(`(${[...this.special.keys()].map((text) => text.replace(/[[\]]/g, "\\$&")).join("|")})`);
  }

  /** Token ids of a prompt. */
  encode(prompt) {
    const ids = prompt.split(this.specials).flatMap((part) => (this.special.has(part) ? [this.special.get(part)] : this.plain(part)));
    return [this.special.get("[CLS]"), ...ids.slice(0, this.longest - 2), this.special.get("[SEP]")];
  }

  plain(text) {
    return WordPiece.words(WordPiece.normalised(text)).flatMap((word) => this.pieces(word));
  }

  static normalised(text) {
    let clean = "";
    for (const character of text) {
      if (character === "\t" || character === "\n" || character === "\r") clean += " ";
      else if (character === "\0" || character === "\ufffd" || CONTROL.test(character)) continue;
      else if (SPACE.test(character)) clean += " ";
      else clean += chinese(character) ? ` ${character} ` : character;
    }
    // Each character by itself: a final sigma is a sigma.
    return Array.from(clean.normalize("NFD")).filter((character) => !ACCENT.test(character)).map((character) => character.toLowerCase()).join("");
  }

  static words(text) {
    const words = [];
    let word = "";
    const end = () => { if (word) words.push(word); word = ""; };
    for (const character of text) {
      if (SPACE.test(character)) end();
      else if (PUNCTUATION.test(character)) { end(); words.push(character); }
      else word += character;
    }
    end();
    return words;
  }

  pieces(word) {
    const characters = Array.from(word), found = [];
    if (characters.length > this.longestWord) return [this.unknown];
    for (let start = 0; start < characters.length; ) {
      let end = characters.length, id;
      for (; end > start; end--) {
        id = this.vocabulary.get((start ? this.prefix : "") + characters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unknown];
      found.push(id);
      start = end;
    }
    return found;
  }
}
