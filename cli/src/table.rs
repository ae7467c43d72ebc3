//! Tables as kubectl has them: columns as wide as their widest cell, three spaces between, nothing at the end of a line.

/// Between two columns.
const GAP: usize = 3;

/// Rows of cells below a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns and no rows.
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells.into());
    }

    /// As [`Table::row`], for a number of cells that is known later.
    pub fn add(&mut self, cells: Vec<String>) {
        let dash = |cell: String| if cell.is_empty() { "-".into() } else { cell };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// Each line ends with a newline.
    pub fn render(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut padded = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let pad = width + GAP - cell.chars().count();
                padded.push_str(cell);
                padded.push_str(&" ".repeat(pad));
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "READY", "AGE"]);
        table.row(["efficientnet".into(), "True".into(), String::new()]);
        table.row(["größe".into(), "False".into(), "3m".into()]);
        assert_eq!(
            table.render(),
            "NAME           READY   AGE\nefficientnet   True    -\ngröße          False   3m\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_head() {
        let table = Table::new(&["A", "B"]);
        assert_eq!(table.render(), "A   B\n");
    }
}
