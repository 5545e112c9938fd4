//! The page, and the data in it.

/// The page without data, as `report/build` makes it.
const TEMPLATE: &str = include_str!("../../../../report/dist/report.html");

/// Where the data go: the page has this element once, and empty.
const OPEN: &str = "<script type=\"application/json\" id=\"rabot-report\">";
const CLOSE: &str = "</script>";

/// Runs that a page can show at once.
pub const MAX_RUNS: usize = 4;

/// The page with data: [`super::ReportData`] as JSON.
pub fn page(json: &str) -> String {
    let at = TEMPLATE.find(OPEN).map_or(TEMPLATE.len(), |at| at + OPEN.len());
    let (head, tail) = TEMPLATE.split_at(at);
    // In JSON `<` can only be in a string, where it may be written so; then nothing in it can end the element.
    format!("{head}{}{tail}", json.replace('<', "\\u003c"))
}

/// The data of a page, as JSON; `None` if this is no page of a report.
pub fn data_of(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(OPEN)?;
    let (json, _) = rest.split_once(CLOSE)?;
    Some(json.trim()).filter(|json| !json.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_come_out_as_they_went_in_and_cannot_end_their_element() {
        assert_eq!(data_of(TEMPLATE), None, "the template holds no data");
        let page = page("{\"model\":\"</script><!-- <script>\"}");
        let found = data_of(&page).unwrap();
        assert_eq!(found, "{\"model\":\"\\u003c/script>\\u003c!-- \\u003cscript>\"}");
        assert!(page.ends_with(&TEMPLATE[TEMPLATE.len() - 20..]));
        assert_eq!(data_of("<html></html>"), None);
    }

    #[test]
    fn the_page_asks_for_nothing_outside_it() {
        for word in [" src=\"http", "href=\"http", "@import", "fetch(\"http"] {
            assert!(!TEMPLATE.contains(word), "{word}");
        }
        assert_eq!(TEMPLATE.matches(OPEN).count(), 1);
    }
}
