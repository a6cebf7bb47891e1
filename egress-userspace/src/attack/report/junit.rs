//! As JUnit's XML: a suite for each class, a case for each attack and user. A leak is a failure; what is not possible, known
//! or allowed is skipped, with the reason.

use std::fmt::Write as _;

use super::{
    super::{Finding, Report, Verdict},
    by_class,
};

/// The report.
pub fn junit(report: &Report) -> String {
    let (tests, failures) =
        (report.findings.len(), report.count(Verdict::Leaked) + report.count(Verdict::Unknown));
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let seconds = report.took.as_secs_f32();
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "<testsuites name=\"egress doctor --attack\" tests=\"{tests}\" failures=\"{failures}\" time=\"{seconds:.3}\">"
    );
    for (class, [contained, leaked, known, impossible, allowed, unknown]) in by_class(report) {
        let skipped = known + impossible + allowed;
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">",
            escape(class.title),
            contained + leaked + unknown + skipped,
            leaked + unknown,
        );
        for finding in report.findings.iter().filter(|finding| finding.attack.class() == class) {
            case(&mut xml, finding);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

fn case(xml: &mut String, finding: &Finding) {
    let attack = finding.attack;
    let name = format!("{} as {}: {}", attack.id, finding.user, attack.title);
    let _ = write!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.6}\"",
        escape(attack.class().title),
        escape(&name),
        finding.enforced.longest.as_secs_f64(),
    );
    let inner = match finding.verdict {
        Verdict::Contained => None,
        Verdict::Leaked => Some(("failure", format!("it arrived; {}", attack.class().advice))),
        Verdict::Unknown => Some(("failure", "it was not made, so nothing is known".to_owned())),
        Verdict::Known => Some(("skipped", "needs somebody outside who helps".to_owned())),
        Verdict::NotPossible => Some(("skipped", format!("not possible here: {}", finding.control.text()))),
        Verdict::Allowed => Some(("skipped", finding.note.clone().unwrap_or_default())),
    };
    let _ = match inner {
        None => writeln!(xml, "/>"),
        Some((element, message)) => {
            writeln!(xml, "><{element} message=\"{}\"/></testcase>", escape(&message))
        }
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
