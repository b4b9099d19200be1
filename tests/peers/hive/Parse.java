// Parses a file with one statement that makes a table as Hive does, and prints a line for the table, each column, each partition column, and each
// property. Parts of columns have lines of their own: useridentity.arn, resources[].arn.

import java.nio.file.Files;
import java.nio.file.Path;
import org.antlr.runtime.tree.Tree;
import org.apache.hadoop.hive.ql.parse.HiveParser;
import org.apache.hadoop.hive.ql.parse.ParseDriver;
import org.apache.hadoop.hive.ql.parse.ParseException;

public final class Parse {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            // Athena takes what ends a statement, Hive's parser does not.
            String statement = Files.readString(Path.of(file)).replaceFirst(";\\s*$", "");
            try {
                tell(new ParseDriver().parse(statement, null).getChild(0));
            } catch (ParseException error) {
                System.err.println(file + ": " + error.getMessage());
                System.exit(1);
            }
        }
    }

    private static void tell(Tree table) {
        if (table.getType() != HiveParser.TOK_CREATETABLE) {
            throw new IllegalArgumentException("makes no table: " + table.getText());
        }
        for (int n = 0; n < table.getChildCount(); n++) {
            Tree part = table.getChild(n);
            switch (part.getType()) {
                case HiveParser.TOK_TABNAME -> System.out.println("table " + part.getChild(0).getText());
                case HiveParser.TOK_TABCOLLIST -> columns("column ", part);
                case HiveParser.TOK_TABLEPARTCOLS -> columns("partition ", part);
                case HiveParser.TOK_TABLEPROPERTIES -> properties(part.getChild(0));
                default -> { }
            }
        }
    }

    private static void columns(String start, Tree columns) {
        for (int n = 0; n < columns.getChildCount(); n++) {
            Tree column = columns.getChild(n);
            column(start + column.getChild(0).getText(), column.getChild(1));
        }
    }

    private static void column(String name, Tree type) {
        switch (type.getType()) {
            case HiveParser.TOK_STRUCT -> columns(name + ".", type.getChild(0));
            case HiveParser.TOK_LIST -> column(name + "[]", type.getChild(0));
            default -> System.out.println(name + " " + type.getText().replaceFirst("^TOK_", ""));
        }
    }

    private static void properties(Tree list) {
        for (int n = 0; n < list.getChildCount(); n++) {
            Tree property = list.getChild(n);
            System.out.println("property " + property.getChild(0).getText() + " " + property.getChild(1).getText());
        }
    }
}
